"""The dashboard draws what the log holds, seldom, and never ends a training."""

import json

import pytest
import torch
from tiny import write_tokenizer
from torch.utils.data import Dataset
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, TrainerState

from course_utils.classroom import dashboard as module
from course_utils.classroom.dashboard import Dashboard, last_line
from course_utils.distill.pretrain import PretrainRecipe, distil_mlm
from course_utils.errors import DataError
from course_utils.models.student import student_from_teacher

TEXTS = ["The [MASK] of every row.", "Plot the [MASK]."]
RECIPE = PretrainRecipe(steps=6, batch_size=4, log_every=1, save_every=3)


class Blocks(Dataset):
    """24 blocks of random ids; every third token is hidden."""

    fingerprint = "24 random blocks"

    def __len__(self):
        return 24

    def __getitem__(self, i):
        if i >= 24:
            raise IndexError
        ids = torch.randint(5, 90, (12,), generator=torch.Generator().manual_seed(i))
        hidden = torch.arange(12) % 3 == 1
        return {"input_ids": ids.masked_fill(hidden, 4), "labels": ids.masked_fill(~hidden, -100)}


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path / "tokenizer", 90)
    return AutoTokenizer.from_pretrained(tmp_path / "tokenizer")


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=90, intermediate_size=32, max_position_embeddings=16, **sizes)
    return BertForMaskedLM(config).eval()


def run(teacher, dashboard, **options):
    student = student_from_teacher(teacher, layers=1)
    recipe = options.pop("recipe", RECIPE)
    return distil_mlm(
        student, teacher, Blocks(), recipe, progress=False, callbacks=[dashboard], **options
    )


def curves(dashboard):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in dashboard.figure().axes[0].lines
    }


@pytest.fixture
def pictures(monkeypatch):
    """The boxes that a notebook would show, and whether one is running."""
    shown = []
    monkeypatch.setattr(module, "display", shown.append)
    monkeypatch.setattr(module.InteractiveShell, "initialized", lambda: True)
    return shown


def test_the_figure_holds_the_log_and_the_guesses(teacher, tokenizer):
    dashboard = Dashboard(tokenizer, TEXTS, every=2)
    log = run(teacher, dashboard)
    steps = [line["step"] for line in log]
    assert steps == [1, 2, 3, 4, 5, 6]
    found = curves(dashboard)
    assert list(found) == ["total", "soft", "masked LM", "cosine"]
    assert found["soft"] == (steps, [line["soft"] for line in log])
    _, rate, speed, guesses = dashboard.figure().axes
    assert list(rate.lines[0].get_ydata()) == [line["learning_rate"] for line in log]
    assert list(speed.lines[0].get_ydata()) == [line["tokens_per_s"] for line in log]
    assert list(dashboard.seen) == [0, 2, 4, 6]
    words = [text.get_text() for text in guesses.texts]
    assert "Plot the ____." in words
    assert [word for word in words if word.startswith("step")] == [
        "step 0",
        "step 2",
        "step 4",
        "step 6",
    ]
    assert any(word.startswith(dashboard.seen[6][1][0][0][0]) for word in words)


def test_without_teacher_and_texts_it_shows_what_there_is(teacher, tokenizer):
    dashboard = Dashboard(tokenizer)
    student = student_from_teacher(teacher, layers=1)
    distil_mlm(student, None, Blocks(), RECIPE, progress=False, callbacks=[dashboard])
    assert list(curves(dashboard)) == ["total", "masked LM"]
    assert len(dashboard.figure().axes) == 3


def test_a_figure_before_any_training_is_empty_and_no_error(tokenizer):
    assert not any(len(xs) for xs, _ in curves(Dashboard(tokenizer, TEXTS)).values())


def test_watching_changes_no_weight(teacher, tokenizer):
    torch.manual_seed(0)
    watched, alone = (student_from_teacher(teacher, layers=1) for _ in range(2))
    dashboard = Dashboard(tokenizer, TEXTS, every=1)
    distil_mlm(watched, teacher, Blocks(), RECIPE, progress=False, callbacks=[dashboard])
    distil_mlm(alone, teacher, Blocks(), RECIPE, progress=False)
    for name, weight in watched.state_dict().items():
        assert weight.equal(alone.state_dict()[name]), name


def test_after_a_resume_the_curves_and_guesses_begin_at_the_start(teacher, tokenizer, tmp_path):
    class Kill(Dashboard):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == 5:
                raise KeyboardInterrupt

    out = tmp_path / "run"
    killed = Kill(tokenizer, TEXTS, every=1)
    with pytest.raises(KeyboardInterrupt):
        run(teacher, killed, out=out)
    resumed, whole = Dashboard(tokenizer, TEXTS, every=1), Dashboard(tokenizer, TEXTS, every=1)
    run(teacher, resumed, out=out)
    run(teacher, whole)
    assert curves(resumed) == curves(whole)
    assert json.dumps(resumed.seen) == json.dumps(whole.seen)
    assert list(resumed.seen) == list(range(7))


def test_a_text_without_a_gap_is_refused_at_once(tokenizer):
    with pytest.raises(DataError, match=r"no \[MASK\] in 'Plot\.'"):
        Dashboard(tokenizer, ["Plot."])


def test_a_text_too_long_is_refused_before_the_first_step(teacher, tokenizer):
    dashboard = Dashboard(tokenizer, ["the " * 20 + "[MASK]"])
    with pytest.raises(DataError, match="the model reads 16"):
        run(teacher, dashboard)
    assert not [line for line in dashboard.history if "loss" in line]


def test_in_a_notebook_one_picture_is_shown_and_drawn_anew(teacher, tokenizer, pictures):
    dashboard = Dashboard(tokenizer, TEXTS, every=3, seconds=0.0)
    run(teacher, dashboard)
    [box] = pictures
    picture, words = box.children
    assert "base64,iVBORw0KGgo" in picture.value
    assert words.value.startswith("step 6, loss ")
    assert 'alt="Curves of the training: step 6, loss ' in picture.value
    assert "tokens per second" in words.value
    assert repr(box) == "(A live picture of the training. It needs a running kernel.)"


def test_pictures_are_drawn_seldom(teacher, tokenizer, pictures, monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "_screen_png", lambda figure: drawn.append(figure) or b"")
    run(teacher, Dashboard(tokenizer, seconds=3600))
    assert len(drawn) == 2  # at the start and at the end


def test_drawing_takes_a_twentieth_of_the_time_at_most(monkeypatch, pictures):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def slowly(figure):
        now[0] += 2.0
        return b""

    monkeypatch.setattr(module, "_screen_png", slowly)
    view = module._View(seconds=3.0)
    dashboard = type("Drawn", (), {"figure": lambda self: None, "history": []})()
    view.draw(dashboard, at_once=False)
    assert view.next_time == 100 + 2 / 0.05


def test_a_picture_that_fails_warns_once_and_the_training_goes_on(
    teacher, tokenizer, pictures, monkeypatch
):
    def broken(*_):
        raise ValueError("no room <here>")

    dashboard = Dashboard(tokenizer, TEXTS, seconds=0.0)
    monkeypatch.setattr(module, "dashboard_figure", broken)
    with pytest.warns(RuntimeWarning, match="ValueError: no room <here>") as told:
        log = run(teacher, dashboard)
    assert len(log) == 6
    assert len([each for each in told if "dashboard" in str(each.message)]) == 1
    assert "no room &lt;here&gt;" in pictures[0].children[1].value
    with pytest.raises(ValueError, match="no room"):
        dashboard.figure()


def test_only_the_first_process_shows_anything(teacher, tokenizer, pictures):
    dashboard = Dashboard(tokenizer, TEXTS)
    state = TrainerState(is_world_process_zero=False)
    dashboard.on_train_begin(None, state, None, model=teacher)
    dashboard.on_log(None, state, None)
    assert (pictures, dashboard.seen, state.log_history) == ([], {}, [])


def test_the_last_line_says_what_the_log_says():
    line = {"step": 1200, "loss": 9.0, "total": 4.5, "tokens_per_s": 2150.4, "mfu": 0.213}
    expected = "step 1,200, loss 4.500, 2,150 tokens per second, MFU 21%, padding 0%"
    assert last_line([line | {"padding_share": 0.0}, {"step": 1200, "guesses": []}]) == expected
    assert last_line([]) == ""
