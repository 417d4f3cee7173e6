"""Everything on the wire as msgspec structs, and the AsyncAPI and OpenAPI documents generated from them."""
