"""The service on a GPU beside the bare session and the limits of the device."""
