"""Ship the top-level tasks/, cfg/ and zoo/ folders as sub-packages of dima_isaac."""

from setuptools import find_packages, setup

VIDEO = ["imageio>=2.30", "imageio-ffmpeg>=0.5"]  # mp4; a GIF needs neither
PLOT = ["matplotlib>=3.7"]
GPU = ["mujoco-warp>=3.17,<5", "warp-lang>=1.15"]
TENSORBOARD, VIEWER = ["tensorboard>=2.14"], ["viser>=1.0"]
SLURM = ["hydra-submitit-launcher>=1.2"]
TORCHRL, SB3 = ["torchrl>=0.14"], ["stable-baselines3>=2.3"]  # the views of those names
ONNX = ["onnx>=1.17", "onnxscript>=0.7", "onnxruntime>=1.20"]  # for export; a policy's .pt needs none of them
TEST = ["pytest>=8", "pytest-timeout>=2.2", "pytest-xdist>=3.6", "ruff>=0.6", "mypy>=1.11", "isaacgym-stubs==1.1rc4"]

setup(
    version="0.1.0",
    description="A diffusion-inspired multi-agent world model for bimanual dexterous manipulation",
    license="Apache-2.0",
    packages=[
        *find_packages(include=["dima_isaac", "dima_isaac.*"]),
        *("dima_isaac.tasks", "dima_isaac.cfg", "dima_isaac.zoo"),
        *("dima_isaac.tasks." + package for package in find_packages("tasks")),
    ],
    package_dir={
        **{"dima_isaac": "dima_isaac", "dima_isaac.tasks": "tasks"},
        **{"dima_isaac.cfg": "cfg", "dima_isaac.zoo": "zoo"},
    },
    package_data={
        "dima_isaac": ["py.typed", "run/renamed.yaml"],
        "dima_isaac.cfg": ["*.yaml", "**/*.yaml"],
        "dima_isaac.tasks": ["**/*.xml"],
        "dima_isaac.zoo": ["*/*.pt", "*/*.onnx", "*/*.yaml", "*/*.csv", "*/*.png"],
    },
    install_requires=[
        "torch>=2.6",  # 2.6 closed a hole in weights_only loading
        "numpy>=1.26",
        "hydra-core>=1.3.6,<1.4",
        "rl-games>=1.6",
        "wandb>=0.19",
        "termcolor>=2.4",
        "mujoco>=3.17,<5",
        "rich>=13.3,<15",
        "gymnasium-robotics>=1.4",  # the Shadow hand's model and the MAMuJoCo partitions
        "pillow>=10",
    ],
    extras_require={
        "video": VIDEO,
        "plot": PLOT,
        "mamujoco": [],  # in the base install; the name stays for those who look for it
        "gpu": GPU,
        "tensorboard": TENSORBOARD,
        "viewer": VIEWER,
        "slurm": SLURM,
        "torchrl": TORCHRL,
        "sb3": SB3,
        "onnx": ONNX,
        "test": [*TEST, *PLOT, *TENSORBOARD, *GPU, *TORCHRL, *SB3, *ONNX],
        "all": [*VIDEO, *PLOT, *TENSORBOARD, *VIEWER, *SLURM, *TEST, *TORCHRL, *SB3, *ONNX],
    },
    entry_points={"console_scripts": ["dima=dima_isaac.cli.main:main"]},
)
