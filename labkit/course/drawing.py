"""Seeds that belong to a student and an assignment."""

from labkit.stats import generator


def drawn(student: str, assignment: str, what: str = "") -> int:
    """A seed for a generator, the same whenever the same is asked for.

        generator = torch.Generator().manual_seed(drawn(STUDENT, "06_rome"))

    Whoever knows the student's id can draw the same facts and matrices again, so a teacher needs
    no other key.

    Args:
        student: The id of the student.
        assignment: Name of the assignment.
        what: What is drawn, where one assignment draws several things.

    Returns:
        A number from 0 to 2^63 - 1.
    """
    return generator(0, student, assignment, what).initial_seed()
