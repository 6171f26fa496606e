"""Which part of the package each file belongs to, and the tests that are to notice an error in it.

The files of a part, each with its own test files, quickest first; an error in one file meets its own tests, then
those of the rest of its part. A file's own docstring examples come before all.
"""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]

AREAS: dict[str, dict[str, str]] = {
    "loops": {
        "_loops/mrs": "loop contract",
        "_loops/loop": "loop contract abstract_loop",
        "_loops/normal_form": "loop contract",
        "_loops/tangent": "loop abstract_loop contract",
        "_rollouts/rollout": "rollout early_leaving sweep",
        "_rollouts/statistics": "rollout early_leaving sweep",
        "_rollouts/rounds": "rollout early_leaving sweep",
        "_rollouts/chunk_kernel": "chunk_kernel early_leaving",
        "_rollouts/regimes": "regimes",
        "_rollouts/growth": "starts regimes",
        "_loops/starts": "starts",
        "_numerics/simplex": "simplex",
        "recipes/_cube": "recipes",
        "recipes/_trl": "recipes trainer_config",
        "recipes/_config": "trainer_config",
        "_cli/loop": "trainer_config",
    },
    "objectives": {
        "_objectives/objective": "objectives dpo_optimum",
        "_objectives/response": "objectives dpo_optimum",
        "_objectives/score_response": "objectives dpo_optimum",
        "_objectives/ipo": "objectives dpo_optimum",
        "_objectives/dpo": "objectives dpo_optimum",
        "_objectives/losses": "objectives",
        "_objectives/bradley_terry": "dpo_optimum",
        "_objectives/empirical": "finite",
        "_objectives/wins": "finite",
        "_numerics/types": "simplex finite",
        "_numerics/linear": "finite",
        "_numerics/randomness": "calling finite sequential",
        "_objectives/gradient_optimum": "gradient_optimum derivatives",
    },
    "newton": {
        "_equilibria/fixed_point": "fixed_point float32",
        "_equilibria/newton_path": "fixed_point float32",
        "_equilibria/error_bound": "certificate skewed_policies fixed_point",
        "_numerics/double": "certificate skewed_policies fixed_point",
    },
    "spectra": {
        "_equilibria/stability": "stability",
        "_numerics/skew": "stability",
        "_equilibria/critical": "critical",
        "_equilibria/first_crossing": "first_crossing critical",
        "_equilibria/equilibrium": "critical safe_region",
        "_equilibria/covariance": "covariance",
        "_equilibria/certificate": "convergence",
        "_equilibria/metric": "convergence",
        "_equilibria/basin": "basin",
        "_equilibria/damping": "damping",
        "_equilibria/noise": "noise",
        "_equilibria/damping_settings": "damping",
        "_equilibria/fixed_points": "fixed_points",
        "_loops/inexact_round": "inexact_round",
    },
    "limits": {
        "_equilibria/boundary": "safe_region",
        "_equilibria/safe_region": "safe_region",
        "_equilibria/tune": "safe_region",
    },
    "maps": {
        "_maps/stability_map": "stability_map starts",
        "_maps/evidence/evidence": "stability_map evidence",
        "_maps/evidence/registry": "stability_map evidence",
        "_maps/evidence/fixed_point": "stability_map",
        "_maps/evidence/rollouts": "stability_map starts regimes",
        "_maps/evidence/regime": "stability_map",
        "_maps/evidence/contraction": "stability_map",
        "_maps/evidence/agreement": "regimes starts",
        "_engine/blocks": "engine sweep",
        "_maps/grid": "stability_map starts",
        "_maps/sweep": "sweep",
        "_maps/batch": "sweep",
        "_engine/cpu": "engine",
        "_maps/statistics": "map_statistics cli",
        "_cli/map": "cli",
    },
    "store": {
        "_maps/store": "store bucket sharing",
        "_maps/shards": "store bucket sharing",
        "_maps/place": "store bucket sharing",
        "_numerics/files": "files store",
        "_cli/sharing": "sharing processes",
    },
    "structure": {
        "_preferences/structure": "structure",
        "_preferences/pairs": "pairs",
        "_ranking/axioms": "axioms",
        "_preferences/voting": "voting",
        "_preferences/hodge": "voting",
        "_numerics/checks": "preferences structure",
        "problems": "problems",
    },
    "samplers": {
        "_ranking/sampler": "sampler",
        "_ranking/criteria": "sampler",
        "_numerics/matrix_game_highs": "sampler",
        "_ranking/sampler_variants": "sampler_variants",
        "_numerics/matrix_game": "sampler",
        "_ranking/witness": "witness",
        "_ranking/violation": "witness",
        "_ranking/sequential": "sequential",
        "_ranking/sequential_runs": "sequential",
        "_ranking/robust_sampler": "intervals",
        "_preferences/intervals": "intervals",
        "_objectives/concentration": "concentration",
        "_objectives/sensitivity": "sampling_sensitivity",
    },
    "finite": {
        "_rollouts/finite": "finite",
        "_loops/sampled_response": "finite",
        "_maps/finite_sweep": "finite",
        "_diagnosis/uncertainty": "uncertain finite",
        "_preferences/posterior": "uncertain diagnosis_counts",
    },
    "diagnosis": {
        "_diagnosis/diagnosis": "diagnosis diagnosis_counts",
        "_diagnosis/parts": "diagnosis recommendation",
        "_diagnosis/verdicts": "diagnosis",
        "_diagnosis/headline": "headline",
        "_diagnosis/prompts": "diagnosis diagnosis_counts",
        "_diagnosis/recommendation": "recommendation",
        "_diagnosis/thresholds": "recommendation diagnosis",
        "_diagnosis/detection": "uncertain",
        "_diagnosis/audit": "audit",
        "_cli/diagnose": "diagnose_command",
        "_diagnosis/tables": "diagnose_command",
        "_diagnosis/words": "diagnose_command",
    },
    "loaders": {
        f"data/{name}": "data_sources data data_files data_real"
        for name in (
            "_arrays",
            "_groups",
            "_hub",
            "_matrices",
            "_pairs",
            "_ratings",
            "_report",
            "_set",
            "_synthetic",
            "_tournaments",
            "_tables",
        )
    }
    | {"data/_layouts": "data_layouts data_files", "data/_texts": "data_layouts"},
    "claims": {
        f"_reproduce/{name}": "claims reproduce"
        for name in (
            "claims",
            "evolution",
            "judges",
            "loops",
            "maps",
            "one_shot",
            "phases",
            "rankings",
            "registry",
            "series",
            "trends",
        )
    },
}

# Not sampled: pictures, words and pages have no right answer to one digit; the rest is wiring that any run exercises.
LEFT_OUT: dict[str, str] = {
    "plot": "cosmetics of pictures",
    "_diagnosis/page": "the words and marks of a page",
    "_diagnosis/chart": "the words and marks of a page",
    "_reproduce/page": "the words and marks of a page",
    "_reproduce/pictures": "cosmetics of pictures",
    "_reproduce/config": "defaults, titles and captions",
    "_reproduce/folder": "names and captions of files",
    "_cli/app": "declarations of commands",
    "_cli/options": "declarations and help texts of options",
    "_cli/parsing": "texts of options, whose errors are one line each",
    "_cli/output": "words on the terminal",
    "_cli/summary": "words on the terminal",
    "_cli/doctor": "words on the terminal",
    "_cli/errors": "words on the terminal",
    "_cli/reproduce": "wiring of one command",
    "_cli/rollout": "wiring of one command",
    "_cli/sources": "wiring of options to loaders",
    "_numerics/results": "declarations",
    "_numerics/version": "declarations",
    "_numerics/deprecation": "words of warnings",
}


def path_of(name: str) -> str:
    return f"ipodyn/{name}.py"


def area_of(path: str) -> str | None:
    """The area of a file, or None where it is left out or unknown."""
    name = path.removeprefix("ipodyn/").removesuffix(".py")
    return next((area for area, files in AREAS.items() if name in files), None)


def unknown() -> list[str]:
    """Files of the package that neither belong to an area nor are left out."""
    paths = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "ipodyn").rglob("*.py"))]
    named = [path for path in paths if not path.endswith("__init__.py") and area_of(path) is None]
    left_out = {path_of(name) for name in LEFT_OUT}
    return [path for path in named if path not in left_out and path.split("/")[1] not in LEFT_OUT]


def tests_of(path: str) -> list[str]:
    """The tests that an error in this file meets, in this order, without duplicates."""
    area = area_of(path)
    if area is None:
        return [path]
    own = AREAS[area][path.removeprefix("ipodyn/").removesuffix(".py")]
    rest = " ".join(AREAS[area].values())
    files = dict.fromkeys(f"tests/test_{name}.py" for name in f"{own} {rest}".split())
    return [path, *(file for file in files if (ROOT / file).is_file())]


def all_tests(area: str) -> list[str]:
    """Everything that may judge an error in this area, for the run without an error."""
    return list(dict.fromkeys(test for name in AREAS[area] for test in tests_of(path_of(name))))
