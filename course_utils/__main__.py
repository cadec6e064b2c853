"""`python -m course_utils` is the command `course`; so torchrun can start it with `-m`."""

from course_utils.cli import main

if __name__ == "__main__":
    main()
