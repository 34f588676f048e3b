// Package migrations holds the schema of the panel's database as goose migrations, in the binary.
//
// A migration that has been released is never edited: a change is a new file.
package migrations

import "embed"

// FS holds the migrations, named NNNNN_subject.sql, in its root.
//
//go:embed *.sql
var FS embed.FS
