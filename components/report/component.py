from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(run: str, numbers: dsl.Output[dsl.Metrics], page: dsl.Output[dsl.HTML], round: str = "") -> str:
    """Writes the round's page, also after a failure. Without a number it takes the round last begun."""
    from sparring.steps.entry import execute, publish

    key = execute("report", run, round)
    numbers.metadata.update(publish(run, key, page.path))
    return key
