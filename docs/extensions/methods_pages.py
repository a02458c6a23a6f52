"""Not yet."""


def setup(app):
    return {}
