//go:build unix

package postgres

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCandidateDirs_PathFirstThenNewestInstalled(t *testing.T) {
	root := t.TempDir()
	programs := func(dir string, names ...string) string {
		dir = filepath.Join(root, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	nine := programs("lib/9/bin", "postgres", "initdb")
	ten := programs("lib/10/bin", "postgres", "initdb")
	programs("lib/11/bin", "postgres") // initdb is missing
	own := programs("opt/bin", "postgres", "initdb")
	linked := programs("usr/bin")
	if err := os.Symlink(filepath.Join(nine, "postgres"), filepath.Join(linked, "postgres")); err != nil {
		t.Fatal(err)
	}
	empty := programs("empty")

	installed := []string{filepath.Join(root, "lib/*/bin")}
	for _, tc := range []struct {
		name string
		path []string
		want []string
	}{
		{"nothing in PATH", []string{empty, "relative"}, []string{ten, nine}},
		{"in PATH", []string{empty, own}, []string{own, ten, nine}},
		{"a link in PATH", []string{linked}, []string{nine, ten}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			searchPath := ""
			for _, dir := range tc.path {
				searchPath += dir + string(filepath.ListSeparator)
			}
			if got := candidateDirs(searchPath, installed); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
