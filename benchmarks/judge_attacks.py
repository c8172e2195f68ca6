"""How often judges fall for texts that instruct them or imitate their output (`sparring.judge.attacks`).

python -m benchmarks judge-attacks              the judges in the package
python -m benchmarks judge-attacks run.yaml     those of a run file, endpoints too
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sparring.config.judges import EMBEDDED, JudgeConfig
from sparring.config.load import load_run
from sparring.judge import load_judge
from sparring.judge.attacks import resistance


def main(arguments: list[str]) -> None:
    """Prints a line a judge, what fooled it, and one JSON line."""
    files = [a for a in arguments if not a.startswith("--")]
    config = load_run(Path(files[0])).judge if files else JudgeConfig()
    rates = {}
    for name in dict.fromkeys([config.reward, *config.gate_names, *(() if files else EMBEDDED)]):
        found = resistance(load_judge(name, config))
        rates[name] = found.rate
        print(f"{name:20} fooled {len(found.fooled):4} of {found.attacked} ({found.rate:.1%}), void {found.void}")
        for attack in sorted({(f.attack.id, f.attack.text.splitlines()[0][:60], f.place) for f in found.fooled}):
            print("    ", *attack, sep="  ")
    print(json.dumps({"bench": "judge-attacks", "rates": rates}))


if __name__ == "__main__":
    main(sys.argv[1:])
