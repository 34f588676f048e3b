// Package migrations embeds the schema of the panel's database as goose migrations.
//
// The SQL of a released migration is never changed: a change is a new file.
package migrations

import "embed"

// FS contains the migrations, named NNNNN_subject.sql, in its root.
//
//go:embed *.sql
var FS embed.FS
