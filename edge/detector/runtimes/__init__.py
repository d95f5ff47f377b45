"""One module a vendor. A runtime never decodes."""
