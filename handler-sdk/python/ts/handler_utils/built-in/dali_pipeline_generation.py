"""Writes the DALI pipeline of an image classifier to a file, for an archive that uses
`dali_image_classifier`.

python dali_pipeline_generation.py --save FILE [--batch_size N] [--num_threads N] [--device_id N]
"""

import argparse
from typing import Any, List, Optional


def make_pipeline(batch_size: int, num_threads: int, device_id: int, seed: int = -1) -> Any:
    """Decode, resize to 256, crop 224 from the middle, normalize as for ImageNet."""
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as cause:
        raise RuntimeError(
            "needs NVIDIA DALI (the Python package nvidia-dali), which can't be imported: {}".format(cause)
        ) from cause

    @pipeline_def(batch_size=batch_size, num_threads=num_threads, device_id=device_id, seed=seed)
    def pipeline() -> Any:
        encoded = fn.external_source(device="cpu", name="my_source")
        images = fn.decoders.image(encoded, device="mixed", output_type=types.RGB)
        images = fn.resize(images, resize_shorter=256)
        return fn.crop_mirror_normalize(
            images,
            dtype=types.FLOAT,
            output_layout="CHW",
            crop=(224, 224),
            mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
            std=[0.229 * 255, 0.224 * 255, 0.225 * 255],
        )

    return pipeline()


def main(arguments: Optional[List[str]] = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the DALI pipeline of an image classifier")
    parser.add_argument("--save", required=True, help="file to write")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--device_id", type=int, default=0)
    parser.add_argument("--seed", type=int, default=-1)
    args = parser.parse_args(arguments)
    make_pipeline(args.batch_size, args.num_threads, args.device_id, args.seed).serialize(filename=args.save)


if __name__ == "__main__":
    main()
