"""Every flag of the upstream scripts with its defaults, as their argument parsers have them: what docs/upstream.md must name.

Source: facebookresearch/mae main_pretrain.py, main_finetune.py, main_linprobe.py, submitit_*.py; MAE-MegEngine
convert_weights.py; mindformers 0.3 and 0.8 run_mindformer.py; LiBai config/arguments.py; FlyEgle train_mae.py, mae_test.py,
inference.py.
"""

from __future__ import annotations

TASKS = {"main_pretrain.py": "pretrain", "main_finetune.py": "finetune", "main_linprobe.py": "linprobe"}
IMAGENET = "/datasets01/imagenet_full_size/061417/"
# By flag the defaults of the three scripts; "" where a script has no such flag, "none" and "off" as argparse's None and False.
OFFICIAL: dict[str, tuple[str, str, str]] = {
    "--batch_size": ("64", "64", "512"), "--epochs": ("400", "50", "90"), "--accum_iter": ("1", "1", "1"),
    "--model": ("mae_vit_large_patch16", "vit_large_patch16", "vit_large_patch16"), "--input_size": ("224", "224", ""),
    "--mask_ratio": ("0.75", "", ""), "--norm_pix_loss": ("off", "", ""), "--drop_path": ("", "0.1", ""),
    "--clip_grad": ("", "none", ""), "--weight_decay": ("0.05", "0.05", "0"), "--lr": ("none", "none", "none"),
    "--blr": ("1e-3", "1e-3", "0.1"), "--layer_decay": ("", "0.75", ""), "--min_lr": ("0", "1e-6", "0"),
    "--warmup_epochs": ("40", "5", "10"), "--color_jitter": ("", "none", ""), "--aa": ("", "rand-m9-mstd0.5-inc1", ""),
    "--smoothing": ("", "0.1", ""), "--reprob": ("", "0.25", ""), "--remode": ("", "pixel", ""),
    "--recount": ("", "1", ""), "--resplit": ("", "off", ""), "--mixup": ("", "0", ""), "--cutmix": ("", "0", ""),
    "--cutmix_minmax": ("", "none", ""), "--mixup_prob": ("", "1.0", ""), "--mixup_switch_prob": ("", "0.5", ""),
    "--mixup_mode": ("", "batch", ""), "--finetune": ("", "''", "''"), "--global_pool": ("", "on", "off"),
    "--cls_token": ("", "off", "on"), "--data_path": (IMAGENET, "the same", "the same"), "--nb_classes": ("", "1000", "1000"),
    "--output_dir": ("./output_dir",) * 3, "--log_dir": ("./output_dir",) * 3, "--device": ("cuda",) * 3,
    "--seed": ("0",) * 3, "--resume": ("''",) * 3, "--start_epoch": ("0",) * 3, "--eval": ("", "off", "off"),
    "--dist_eval": ("", "off", "off"), "--num_workers": ("10",) * 3, "--pin_mem": ("on",) * 3, "--no_pin_mem": ("",) * 3,
    "--world_size": ("1",) * 3, "--local_rank": ("-1",) * 3, "--dist_on_itp": ("off",) * 3, "--dist_url": ("env://",) * 3,
}  # fmt: skip
_LIBAI = "--config-file --resume --eval-only --fast-dev-run"
_MINDFORMERS = (
    "--config --mode --device_id --device_target --run_mode --dataset_dir --predict_data --load_checkpoint --seed --use_parallel "
    "--profile --options --epochs --batch_size --sink_mode --num_samples --do_eval --train_dataset_dir --eval_dataset_dir "
    "--predict_batch_size --src_strategy_path_or_dir --auto_trans_ckpt --only_save_strategy --resume_training "
    "--strategy_load_checkpoint --remote_save_url"
)
_FLYEGLE = (
    "--ngpu --rank --dist-backend --local_rank --distributed --train_file --val_file --num-classes --crop_size --num_classes "
    "--checkpoints-path --log-dir --randomearse --optimizer_name --lr --momentum --batch_size --num_workers --cosine "
    "--weight_decay --layer_decay --patch_size --calculate_val --finetune --mae_pretrain --color_jitter --aa "
    "--train_interpolation --reprob --remode --recount --resplit --lars --lars_confience --opt --opt_eps --opt_betas --mixup "
    "--cutmix --cutmix-minmax --mixup-prob --mixup-switch-prob --mixup-mode --smoothing --model_name --warmup_epochs "
    "--max_epochs --color_prob"
)
# By the second column of their table.
OTHERS = {
    "submitit_pretrain.py, submitit_finetune.py, submitit_linprobe.py": (
        "--ngpus --nodes --timeout --job_dir --partition --use_volta32 --comment"
    ),
    "convert_weights.py": "-m --model -c --ckpt",
    "run_mindformer.py": _MINDFORMERS,
    "train_net.py": _LIBAI,
    "train_mae.py": _FLYEGLE,
    "mae_test.py, inference.py": "--ckpt --test_file --test_image",
}
