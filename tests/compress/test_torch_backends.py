"""Half precision refuses what it cannot hold, and says what that is."""

from __future__ import annotations

import copy

import pytest
import torch

from course_utils.compress.torch_backends import half
from course_utils.errors import ModelError


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_called_too_large(model, dtype, bad):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.classifier.weight[0, 0] = bad
    with pytest.raises(ModelError, match=r"classifier\.weight holds NaN or infinity"):
        half(broken, dtype)
