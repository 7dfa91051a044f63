"""The one exception that a user is meant to read."""


class ZooError(Exception):
    """A request that cannot be met: one sentence that names the thing, the reason and the remedy.

    The command line prints the message without a traceback and exits with status 1; everything else that is raised
    is a defect of the zoo and keeps its traceback.
    """
