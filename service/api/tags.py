"""Tags of the OpenAPI document, which are the headings of its page."""

MODELS = "Models"
OPERATIONS = "Operations"
EMBEDDINGS = "Embeddings for OpenAI's clients"
OPEN_INFERENCE = "Open Inference Protocol"
REPOSITORY = "Model repository"
HEALTH = "Health and metrics"
ONE_VERSION = "One version of a model"

DESCRIPTIONS = {  # in the order of the page
    MODELS: "Cards of the models: capabilities, size of the input, calibration, metrics. "
    "Start here.",
    OPERATIONS: "Run a model on images or on latent vectors. Its card lists the operations that it "
    "can do, as `capabilities`. Unless the path names a version, the newest version responds, or "
    "the pinned version.",
    EMBEDDINGS: "Embeddings in the format of OpenAI's API, so that its clients work unchanged. "
    "Their base URL is `/openai/v1`.",
    OPEN_INFERENCE: "Inference in the format of KServe, Triton and MLServer, version 2. "
    "A model's own name encodes. `NAME.OPERATION` is a model for each other operation, such as "
    "`mnist-vae.sample`.",
    REPOSITORY: "List, load and unload models, as Triton does. `load` and `unload` need the "
    "setting `AE_MODEL_CONTROL=explicit` and, with API keys, the right `admin`.",
    HEALTH: "Probes for an orchestrator, and metrics for Prometheus.",
    ONE_VERSION: "The same requests, to one version. A card lists the `versions` of its model.",
}
