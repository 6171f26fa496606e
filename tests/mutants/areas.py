"""Which part of the package each file belongs to, and the tests that are to notice an error in it.

The files of a part, each with its own test files, quickest first; an error in one file meets its own tests, then
those of the rest of its part. A file's own docstring examples come before all.
"""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]

AREAS: dict[str, dict[str, str]] = {
    "loops": {
        "_loop": "loop contract",
        "_rollout": "rollout early_leaving sweep",
        "_chunk_kernel": "chunk_kernel early_leaving",
        "_regimes": "regimes",
        "_growth": "starts regimes",
        "_starts": "starts",
        "_simplex": "simplex",
        "recipes": "recipes",
    },
    "objectives": {
        "_objectives": "objectives dpo_optimum",
        "_losses": "objectives",
        "_bradley_terry": "dpo_optimum",
        "_empirical": "finite",
        "_gradient_optimum": "gradient_optimum",
    },
    "newton": {
        "_fixed_point": "fixed_point float32",
        "_newton_path": "fixed_point float32",
        "_certificate": "certificate skewed_policies fixed_point",
        "_double": "certificate skewed_policies fixed_point",
        "_linear": "fixed_point sampling_sensitivity",
    },
    "spectra": {"_stability": "stability", "_critical": "critical", "_covariance": "covariance"},
    "limits": {"_boundary": "safe_region", "_safe_region": "safe_region", "_tune": "safe_region"},
    "maps": {
        "_stability_map": "stability_map starts",
        "_engine": "engine sweep",
        "_grid": "stability_map",
        "_sweep": "sweep",
        "_cpu": "engine",
        "_map_statistics": "map_statistics cli",
        "_cli/map": "cli",
    },
    "store": {
        "_store": "store bucket sharing",
        "_shards": "store bucket sharing",
        "_place": "store bucket sharing",
        "_cli/sharing": "sharing processes",
    },
    "structure": {
        "_structure": "structure",
        "_axioms": "axioms",
        "_voting": "voting",
        "_hodge": "voting",
        "_preferences": "preferences structure",
        "problems": "problems",
    },
    "samplers": {
        "_sampler": "sampler",
        "_sampler_lp": "sampler",
        "_sampler_variants": "sampler_variants",
        "_matrix_game": "sampler",
        "_witness": "witness",
        "_violation": "witness",
        "_sequential": "sequential",
        "_sequential_runs": "sequential",
        "_intervals": "intervals",
        "_concentration": "concentration",
        "_sampling_sensitivity": "sampling_sensitivity",
    },
    "finite": {"_finite": "finite", "_uncertain": "uncertain finite"},
    "diagnosis": {
        "_diagnosis": "diagnosis",
        "_prompts": "diagnosis",
        "_recommendation": "diagnosis",
        "_detection": "uncertain",
        "_audit": "audit",
        "_cli/diagnose": "diagnosis",
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
    },
    "claims": {
        f"_reproduce/{name}": "claims reproduce"
        for name in (
            "_claims",
            "_evolution",
            "_loops",
            "_maps",
            "_one_shot",
            "_phases",
            "_rankings",
            "_registry",
            "_series",
            "_trends",
        )
    },
}

# Not sampled: pictures, words and pages have no right answer to one digit; the rest is wiring that any run exercises.
LEFT_OUT: dict[str, str] = {
    "plot": "cosmetics of pictures",
    "_report_html": "the words and marks of a page",
    "_reproduce/_page": "the words and marks of a page",
    "_reproduce/_pictures": "cosmetics of pictures",
    "_reproduce/_config": "defaults, titles and captions",
    "_reproduce/_folder": "names and captions of files",
    "_cli/app": "declarations of commands",
    "_cli/options": "declarations and help texts of options",
    "_cli/output": "words on the terminal",
    "_cli/summary": "words on the terminal",
    "_cli/doctor": "words on the terminal",
    "_cli/errors": "words on the terminal",
    "_cli/reproduce": "wiring of one command",
    "_cli/rollout": "wiring of one command",
    "_cli/sources": "wiring of options to loaders",
    "_types": "declarations",
    "_results": "declarations",
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
