// Package walls holds the walls between the rooms of docs/architecture.md.
// The linter refuses an import as it is written; this asks the go command what
// every package imports and every binary links, whatever the file was named.
package walls

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/eclitunnel/eclitunnel"

// goPackage is what is read here of `go list -json`.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// list runs go list at the module's root; paths of ours come without the module's name.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...)
	cmd.Dir = "../.."
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, problems.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = local(p.ImportPath)
		for i := range p.Imports {
			p.Imports[i] = local(p.Imports[i])
		}
		packages = append(packages, p)
	}
}

// local shortens a package of ours to its directory: "./relay/wire", "." for the root.
func local(importPath string) string {
	if importPath == module {
		return "."
	}
	if dir, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return "./" + dir
	}
	return importPath
}

// within reports whether a package lies in a tree: tree itself or anything below it.
func within(importPath, tree string) bool {
	return importPath == tree || strings.HasPrefix(importPath, tree+"/")
}

// rooms says which packages of ours each room may import. The first room that
// holds a package decides. A name ending in "/..." stands for a tree.
var rooms = []struct {
	room    string
	imports []string
}{
	{".", nil},
	{"./gen/types", nil},
	{"./gen/...", []string{"./gen/types"}},
	{"./db/dbtest", []string{"./db/..."}},
	{"./db/...", []string{"./db/..."}},
	{"./internal/await", nil},
	{"./internal/netaddr", nil},
	{"./internal/wstest", nil},
	{"./internal/backoff", nil},
	{"./internal/channel", []string{"./internal/backoff"}},
	{"./internal/controlclient", []string{"./gen/types", "./internal/channel", "./internal/backoff"}},
	{"./internal/diagnostics", nil},
	{"./internal/contracttest", []string{"."}},
	{"./relay/wire", nil},
	{"./relay/udpsock", nil},
	{"./relay/tcpstream", []string{"./relay/wire"}},
	{"./relay/seal", nil},
	{"./relay/seal/sealtest", []string{"./relay/seal"}},
	{"./relay/udptunnel", []string{"./relay/wire", "./relay/seal", "./relay/udpsock"}},
	{"./relay/publicport", []string{"./relay/wire", "./relay/udpsock", "./relay/tcpstream", "./relay/udptunnel", "./gen/types", "./internal/..."}},
	{"./relay/session", []string{"./relay/wire", "./relay/seal", "./relay/tcpstream", "./relay/udptunnel", "./gen/types", "./internal/..."}},
	{"./relay/relaytest", []string{"./relay/...", "./gen/types", "./internal/..."}},
	{"./relay", []string{"./relay/...", "./gen/types", "./internal/..."}},
	{"./clients/tunnel", []string{"./gen/client", "./gen/types"}},
	{"./clients/agent/internal/pacing", nil},
	{"./clients/agent/internal/store", nil},
	{"./clients/agent/internal/target", []string{"./relay/tcpstream", "./relay/udpsock", "./relay/udptunnel", "./relay/wire", "./gen/types"}},
	{"./clients/agent/internal/link", []string{"./clients/agent/internal/target", "./relay/tcpstream", "./relay/udptunnel", "./relay/wire", "./gen/types", "./internal/..."}},
	{"./clients/agent/internal/link/linktest", []string{"./clients/agent/internal/...", "./relay/...", "./gen/types", "./internal/..."}},
	{"./clients/agent", []string{"./clients/agent/internal/...", "./clients/tunnel", "./relay/...", "./gen/types", "./internal/..."}},
	{"./clients/eclitunnel", []string{"./clients/agent", "./clients/tunnel", "./relay/...", "./gen/types", "./internal/..."}},
	{"./server/eclitunneld", []string{"./server", "./internal/..."}},
	{"./server/servertest", []string{".", "./gen/...", "./db/...", "./relay/...", "./server/...", "./internal/..."}},
	{"./server/...", []string{".", "./gen/...", "./db/...", "./relay/...", "./server/...", "./internal/..."}},
	{"./test/...", []string{"./test/...", "./clients/...", "./gen/client", "./gen/types", "./internal/..."}},
}

func matches(importPath, pattern string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return within(importPath, tree)
	}
	return importPath == pattern
}

func TestRooms_ImportWhatTheTableAllows(t *testing.T) {
	for _, p := range list(t, "./...") {
		allowed, found := []string(nil), false
		for _, r := range rooms {
			if matches(p.ImportPath, r.room) {
				allowed, found = r.imports, true
				break
			}
		}
		if !found {
			t.Errorf("%s is in no room of the table: say what it may import", p.ImportPath)
			continue
		}
	imports:
		for _, imported := range p.Imports {
			if !within(imported, ".") {
				continue
			}
			for _, pattern := range allowed {
				if matches(imported, pattern) {
					continue imports
				}
			}
			t.Errorf("%s imports %s", p.ImportPath, imported)
		}
	}
}

func TestForeignPackages_EnterWhereTheyBelong(t *testing.T) {
	homes := []struct {
		foreign string
		homes   []string
	}{
		{"database/sql", []string{"./db/..."}},
		{"github.com/jmoiron/sqlx", []string{"./db/..."}},
		{"github.com/lib/pq", []string{"./db/..."}},
		{"github.com/pressly/goose/v3", []string{"./db/..."}},
		{"github.com/lestrrat-go/jwx/v2", []string{"./server/internal/auth", "./relay/session"}},
		{"github.com/getkin/kin-openapi", []string{"./server/...", "./internal/contracttest"}},
		{"github.com/prometheus/client_golang", []string{"./relay", "./clients/agent", "./server", "./internal/..."}},
		{"log", nil}, // log/slog is its own package and not meant
	}
	packages := list(t, "./...")
	for _, h := range homes {
		for _, p := range packages {
			atHome := false
			for _, home := range h.homes {
				atHome = atHome || matches(p.ImportPath, home)
			}
			for _, imported := range p.Imports {
				if !atHome && within(imported, h.foreign) && path.Base(imported) != "slog" {
					t.Errorf("%s imports %s", p.ImportPath, imported)
				}
			}
		}
	}
}

func TestAgentBinary_LinksNothingOfThePanel(t *testing.T) {
	for _, p := range list(t, "-deps", "./clients/eclitunnel") {
		for _, forbidden := range []string{
			"./server", "./db", "./gen/server",
			"github.com/lib/pq",
			"github.com/jmoiron/sqlx",
			"github.com/getkin/kin-openapi",
		} {
			if within(p.ImportPath, forbidden) {
				t.Errorf("the agent links %s", p.ImportPath)
			}
		}
	}
}
