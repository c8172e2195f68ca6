from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(run: str, round: str) -> str:
    """Makes the candidate champion; checks the decision again itself."""
    from sparring.steps.entry import execute

    return execute("promote", run, round)
