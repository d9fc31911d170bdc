"""`Trainer`: train, finetune, evaluate, predict, as mindformers' users know it; each makes a function's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ..files.errors import Problem
from ..training import checkpoints
from ..training.classifying import FineTuning
from ..training.evaluate import evaluate
from ..training.loop import run_request
from ..training.measured import told_of
from ..training.reading import as_settings, read_any_recipe, read_recipe
from ..training.recipe import Common, Recipe
from ..training.request import Outcome, Request, resumed
from ..training.scores import Result
from .advice import INSTEAD, instead, require_known
from .mindformers import MODES, Run, read_run
from .pipelines import pipeline, require_task
from .sources import find, our_name

_USUAL: dict[str, type[Common]] = {"masked_image_modeling": Recipe, "image_classification": FineTuning}
_OPTIONS = ("device", "threads", "dtype", "changed")  # of Request, beside those that have arguments of their own


class Trainer:
    """A task, a model, data and settings, to be trained, evaluated or used in any framework.

    task: masked_image_modeling or image_classification. model: a model's name (mindformers', too), a JSON file or
    "img_size=32,..."; None: the recipe's. train_dataset, eval_dataset: paths, as docs/data.md has them. recipe: a name, a YAML
    file or a Recipe, by default the official one of the task; one of a linear probe ("linprobe-base") has image_classification
    train the head alone. settings: changes of it, {"epochs": 3} or ["epochs=3"]. args: a YAML file in mindformers' layout,
    which gives all of these; what is given beside it comes before it, and `written` has its notices. output_dir: the run's
    folder. show: progress on stderr.
    options: device, threads, dtype, changed (go on although recipe or data differ).
    Raises Problem for an argument that is not there, saying what to use instead.
    """

    def __init__(
        self,
        task: str | None = None,
        model: str | None = None,
        train_dataset: str | Path | None = None,
        eval_dataset: str | Path | None = None,
        framework: str = "torch",
        recipe: Any = None,
        settings: Mapping[str, Any] | Iterable[str] = (),
        output_dir: str | Path | None = None,
        args: str | Path | Run | None = None,
        show: bool = False,
        **options: Any,
    ):
        arguments = (
            "task",
            "model",
            "train_dataset",
            "eval_dataset",
            "framework",
            "recipe",
            "settings",
            "output_dir",
            "args",
        )
        require_known("Trainer", options, (*arguments, "show", *_OPTIONS))
        self.written: Run | None = None
        self._settings = as_settings(settings)
        if args is not None:
            self.written = written = read_run(Path(args)) if isinstance(args, (str, Path)) else args
            task, recipe = task or written.task, recipe or written.recipe
            train_dataset, eval_dataset = train_dataset or written.train_data, eval_dataset or written.eval_data
            output_dir = output_dir or written.output_dir
        if task is None:
            raise Problem("task is missing: masked_image_modeling or image_classification.", code="bad-argument")
        require_task(task)
        paths = {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "output_dir": output_dir}
        for name, value in paths.items():
            if not isinstance(value, (str, Path, type(None))):
                raise Problem(
                    f"{name} is a {type(value).__name__}; give a path: a folder of images, a list, .tar, .parquet or .npz.",
                    code="bad-argument",
                )
        if not isinstance(model, (str, type(None))):
            raise Problem(
                f"model is a {type(model).__name__}; give a model's name. To begin with the weights of a loaded one: "
                "finetune(model.save_pretrained(FOLDER)).",
                code="bad-argument",
            )
        self.task, self.framework, self.show, self._options, self._given = task, framework, show, options, recipe
        self.train_dataset, self.eval_dataset, self.output_dir = (
            None if path is None else Path(path) for path in paths.values()
        )
        self.model = None if model is None else our_name(model)
        if self.model is not None:
            self._settings = (f"model={self.model}", *self._settings)
        self.recipe = self._recipe()

    def train(self, resume: bool | str | Path = False, **unknown: Any) -> Outcome:
        """Train from initial weights; resume: True goes on with the run in output_dir, a path with another one."""
        require_known("train", unknown, ["resume"])
        if resume is False:
            return run_request(self._request(None), self.show)
        path = self._folder() if resume is True else Path(resume)
        name = None if isinstance(self._given, (Common, type(None))) else self._given
        options = {name: value for name, value in self._options.items() if name != "dtype"}  # which is the run's
        request = resumed(
            path, self._settings, name, self.framework, self.train_dataset, self.output_dir, type(self.recipe),
            self._eval_data(), **options,
        )  # fmt: skip
        return run_request(
            replace(request, recipe=self._given) if isinstance(self._given, Common) else request, self.show
        )

    def finetune(self, finetune_checkpoint: str | Path | None = None, **unknown: Any) -> Outcome:
        """Train from a checkpoint's weights: of any framework, a run's folder, or a published one by name.

        masked_image_modeling goes on with pre-training from them; image_classification makes a classifier of their encoder.
        """
        require_known("finetune", unknown, ["finetune_checkpoint"])
        if finetune_checkpoint is None:
            raise Problem(
                "finetune begins with a checkpoint: finetune('mae_pretrain_vit_base'), or a path. train() begins with initial "
                "weights.",
                code="bad-argument",
            )
        return run_request(self._request(find(finetune_checkpoint).path), self.show)

    def evaluate(self, eval_checkpoint: str | Path | None = None, **options: Any) -> Result:
        """Top-1, top-5 and loss of a checkpoint (None: of the run) on eval_dataset, or the val part of train_dataset.

        options: those of polymae.training.evaluate.evaluate.
        """
        if self.task != "image_classification":
            raise Problem(
                "masked_image_modeling has no accuracy to evaluate: polymae knn measures an autoencoder's features, "
                "image_classification's finetune makes a classifier of it, predict shows what it paints.",
                code="bad-argument",
            )
        data = self.eval_dataset or self.train_dataset
        if data is None:
            raise Problem("eval_dataset is missing: Trainer(..., eval_dataset='imagenet/val').", code="bad-argument")
        weights = self._checkpoint("evaluate(eval_checkpoint", eval_checkpoint)
        return evaluate(self.framework, data, weights, **self._of_model("model", weights), **options)

    def predict(
        self, predict_checkpoint: str | Path | None = None, input_data: Any = None, **options: Any
    ) -> list[Any]:
        """What `pipeline` gives of images by a checkpoint; None: by the run's. options: those of pipeline."""
        if input_data is None:
            raise Problem(
                "input_data is missing: predict(input_data='photos/'), a path, a Pillow image, an array, or a list of them.",
                code="bad-argument",
            )
        weights = self._checkpoint("predict(predict_checkpoint", predict_checkpoint)
        options = {**self._of_model("model_config", weights), **options}
        return pipeline(self.task, weights, self.framework, **options)(input_data)

    def run(self, run_mode: str | None = None) -> Any:
        """What run_mode says (train, finetune, eval, predict; None: that of the file `args`), with the file's checkpoint."""
        written = self.written
        if written is None:
            raise Problem("run does what a file says: Trainer(args='CONFIG.yaml').run().", code="bad-argument")
        mode = run_mode or written.mode
        if mode not in MODES:
            raise Problem(f"run_mode is {mode!r}; it must be one of {', '.join(MODES)}.", code="bad-argument")
        if mode == "train":
            return self.train(resume=written.resume and (written.checkpoint or True))
        if mode == "finetune":
            return self.finetune(written.checkpoint)
        return (
            self.evaluate(written.checkpoint)
            if mode == "eval"
            else self.predict(written.checkpoint, written.predict_data)
        )

    def __getattr__(self, name: str) -> NoReturn:
        hint = f"{instead(name, ())}." if name in INSTEAD else "it can train, finetune, evaluate and predict."
        raise AttributeError(f"A Trainer has no {name}; {hint}")

    def _recipe(self) -> Any:
        usual, given = _USUAL[self.task], self._given
        if isinstance(given, Common):
            if self._settings:
                raise Problem(
                    "The recipe is an object, which is complete; give its name or its file, to change its model or settings.",
                    code="bad-argument",
                )
            recipe = given
        elif given is None:
            recipe = read_recipe(usual.usual, self._settings, usual)
        else:
            recipe = read_any_recipe(given, self._settings)
        if isinstance(recipe, Recipe) != (usual is Recipe):
            raise Problem(
                f"The recipe is one of {recipe.task}, and the task is {self.task}; leave recipe out, or name another "
                "(`polymae recipes`).",
                code="bad-argument",
            )
        return recipe

    def _request(self, weights: Path | None) -> Request:
        if self.train_dataset is None:
            raise Problem("train_dataset is missing: Trainer(..., train_dataset='imagenet/').", code="bad-argument")
        return Request(
            self.framework, self.train_dataset, self._folder(), self.recipe, weights, eval_data=self._eval_data(),
            **self._options,
        )  # fmt: skip

    def _eval_data(self) -> Path | None:
        return self.eval_dataset if self.task == "image_classification" else None

    def _folder(self) -> Path:
        if self.output_dir is None:
            raise Problem("output_dir is missing: Trainer(..., output_dir='runs/mine').", code="bad-argument")
        return self.output_dir

    def _checkpoint(self, argument: str, given: str | Path | None) -> Path:
        """The weights that are used: those that are given, else the run's."""
        if given is not None:
            return find(given).path
        if self.output_dir is not None and checkpoints.steps_of(self.output_dir):
            return self.output_dir
        raise Problem(
            f"There is no run in output_dir ({self.output_dir}); train first, or name weights: {argument}=NAME or PATH).",
            code="no-such-file",
        )

    def _of_model(self, name: str, weights: Path) -> dict[str, Any]:
        """Options of the functions that use a model; `name` is that of the model's sizes, where the file does not say them."""
        options = {name: value for name, value in self._options.items() if name != "changed"}
        said = told_of(weights).checkpoint.evidence.declared is not None
        return options if said or self.model is None else {name: self.model, **options}
