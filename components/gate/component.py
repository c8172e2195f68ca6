from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(run: str, round: str) -> str:
    """Decides; returns PROMOTE, REJECT, INCONCLUSIVE or INVALID."""
    from sparring.steps.entry import execute

    return execute("gate", run, round)
