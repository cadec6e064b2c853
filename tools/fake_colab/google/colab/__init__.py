"""What stands for Colab's own package in `make test-colab`: as much of it as the course uses."""
