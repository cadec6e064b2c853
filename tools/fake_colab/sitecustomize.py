"""On Colab every kernel has imported google.colab before the first cell runs."""

import google.colab  # noqa: F401 - that it is loaded is how notebooks know where they are
