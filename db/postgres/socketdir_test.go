//go:build unix

package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/postgres"
)

func TestStart_FindsAPlaceForTheSocketWhateverTMPDIRIs(t *testing.T) {
	dir := filepath.Join(sharedDir(t), strings.Repeat("long/", 30))
	comma := filepath.Join(sharedDir(t), "a,b")
	check(t, os.Mkdir(comma, 0o755))
	options := postgres.Options{DataDir: dir, Settings: noSync}
	for name, value := range map[string]string{
		"missing":         filepath.Join(t.TempDir(), "none"),
		"too long":        filepath.Dir(filepath.Clean(dir)),
		"relative":        ".",
		"two to Postgres": comma,
		"no directory":    "/dev/null",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", value)
			server := start(t, options)
			query(t, server.URL(), `SELECT 'ok'`)
			stop(t, server)
		})
	}
}
