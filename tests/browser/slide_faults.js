// A function: everything that is wrong with the slide on the screen, one sentence each.
() => {
  const faults = [];
  const section = document.querySelector(".bespoke-marp-active section");
  const box = section.getBoundingClientRect();
  const scale = box.width / 1280;
  const style = getComputedStyle(section);
  const inner = {
    left: box.left + parseFloat(style.borderLeftWidth) * scale,
    right: box.right - parseFloat(style.paddingRight) * scale,
    top: box.top + parseFloat(style.paddingTop) * scale,
    bottom: box.bottom - parseFloat(style.paddingBottom) * scale,
  };

  // The slide itself lies in a drawing, so `closest` alone finds one everywhere.
  function within(element, selector) {
    return section.contains(element.closest(selector));
  }

  function inWords(node) {
    const text = (node.textContent || node.alt || "").trim().replace(/\s+/g, " ");
    return `“${text.slice(0, 40)}”`;
  }

  function checkBox(rect, node) {
    const beyond = ["left", "top"].filter((side) => rect[side] < inner[side] - 1);
    beyond.push(...["right", "bottom"].filter((side) => rect[side] > inner[side] + 1));
    if (beyond.length) faults.push(`${inWords(node)} reaches over the margin (${beyond})`);
  }

  // Colours as the page mixes them: [red, green, blue, alpha].
  function colour(text) {
    const parts = text.match(/[\d.]+/g).map(Number);
    return parts.length === 3 ? [...parts, 1] : parts;
  }
  function over(top, below) {
    return [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3])).concat(1);
  }
  function background(element) {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.push(colour(getComputedStyle(e).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  }
  function opacity(element) {
    let product = 1;
    for (let e = element; e; e = e.parentElement) product *= getComputedStyle(e).opacity;
    return product;
  }
  // WCAG 2.2, "relative luminance" and "contrast ratio".
  function luminance(rgb) {
    const [r, g, b] = rgb.map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function checkLetters(element, words, pseudo) {
    const style = getComputedStyle(element, pseudo);
    const below = background(element);
    const letters = colour(style.color);
    letters[3] *= opacity(element);
    const [high, low] = [luminance(over(letters, below)), luminance(below)].sort((a, b) => b - a);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) faults.push(`${words} has a contrast of ${contrast.toFixed(2)}:1`);
    const size = parseFloat(style.fontSize);
    if (size < 14) faults.push(`${words} has letters of ${size} px`);
  }

  if (section.scrollHeight > section.clientHeight || section.scrollWidth > section.clientWidth) {
    faults.push("the slide overflows");
  }
  for (const element of section.querySelectorAll("*")) {
    if (within(element, "svg, style, mjx-container")) continue;
    checkBox(element.getBoundingClientRect(), element);
  }
  const walker = document.createTreeWalker(section, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.textContent.trim() || within(node.parentElement, "style, svg")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const rect of range.getClientRects()) checkBox(rect, node);
    checkLetters(node.parentElement, inWords(node));
  }
  for (const formula of section.querySelectorAll("mjx-container > svg")) {
    checkBox(formula.getBoundingClientRect(), formula);
    checkLetters(formula, "a formula");
    if (formula.querySelector("[data-mml-node=merror]")) faults.push("a formula is not understood");
  }
  for (const pseudo of ["::before", "::after"]) {
    const content = getComputedStyle(section, pseudo).content;
    if (content !== "none") checkLetters(section, `the small print ${content}`, pseudo);
  }
  for (const image of section.querySelectorAll("img")) {
    if (!image.alt.trim()) faults.push("an image without alternative text");
    if (!image.complete || !image.naturalWidth) faults.push(`the image ${inWords(image)} is missing`);
    const { width, height } = image.getBoundingClientRect();
    const shown = Math.min(height, (width * image.naturalHeight) / (image.naturalWidth || 1));
    if (shown < 240 * scale) faults.push(`the image ${inWords(image)} is ${shown.toFixed(0)} px high`);
  }
  return [...new Set(faults)];
}
