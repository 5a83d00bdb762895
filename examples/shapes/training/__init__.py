"""How the embedded foundation was made: a tiny text-to-video WanPipeline, trained on the small world.

Run in this order, from an installed clone; every step can be stopped and resumed:

    python -m modelgrow.examples.shapes.training.train_vae         --out runs/foundation
    python -m modelgrow.examples.shapes.training.latents           --out runs/foundation
    python -m modelgrow.examples.shapes.training.train_transformer --out runs/foundation
    python -m modelgrow.examples.shapes.training.export            --out runs/foundation
    python -m modelgrow.examples.shapes.training.measure           --model runs/foundation/pipeline

About two hours on two CPU cores; `--device cuda` makes it minutes.
"""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.examples.shapes.training'; run 'pip install -e .' in the clone first")
