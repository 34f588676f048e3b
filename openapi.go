// Package eclitunnel holds the contract that everything else follows from.
package eclitunnel

import _ "embed"

// OpenAPI is the text of openapi.yaml, an OpenAPI 3.0.3 document: the panel
// validates requests with it and serves it at /openapi.yaml and, as
// JSON, at /openapi.json.
//
//go:embed openapi.yaml
var OpenAPI []byte
