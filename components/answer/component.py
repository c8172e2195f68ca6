from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def answer(run: str, round: str) -> str:
    """Lets champion, candidate and reference answer the suites."""
    from sparring.steps.entry import execute

    return execute("answer", run, round)
