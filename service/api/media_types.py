"""Media types of requests and responses."""

JSON, NPY, MULTIPART = "application/json", "application/x-npy", "multipart/form-data"
ZIP = "application/zip"
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")

PNG = "image/png"
VECTOR_TYPES = (JSON, NPY)
PICTURE_TYPES = (JSON, NPY, PNG)
