// Package eclitunnel holds the contract that everything else follows from.
package eclitunnel

import "embed"

// OpenAPI is the text of openapi.yaml, an OpenAPI 3.0.3 document: the panel
// validates requests with it and serves it at /openapi.yaml and, as
// JSON, at /openapi.json.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Docs are the documents that the panel's API explorer shows as guides, by their path in
// the repository.
//
//go:embed docs/guides docs/events.md docs/webhooks.md docs/errors.md
var Docs embed.FS
