// How Marp builds the decks: nothing from elsewhere, and every formula says in TeX what it shows.

const escaped = (text) =>
  text.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;").replace(/\s+/g, " ");

function formulasInWords(markdown) {
  for (const kind of ["marp_math_inline", "marp_math_block"]) {
    const draw = markdown.renderer.rules[kind];
    markdown.renderer.rules[kind] = (tokens, k, ...rest) =>
      draw(tokens, k, ...rest).replace("<svg ", `<svg aria-label="${escaped(tokens[k].content)}" `);
  }
}

export default {
  html: { img: ["alt", "src"] },
  options: { emoji: { unicode: false, shortcode: false } },
  bespoke: { osc: false },
  engine: ({ marp }) => marp.use(formulasInWords),
};
