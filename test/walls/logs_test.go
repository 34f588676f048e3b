package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// otherNames are names that a log might call an id by, and the one it has
// everywhere, so that one search finds a device in the logs of panel, tunnel servers
// and agents.
var otherNames = map[string]string{
	"device": "deviceId", "client": "deviceId", "clientId": "deviceId",
	"allocation": "allocationId",
	"server":     "serverId", "tunnelServer": "serverId", "relay": "serverId",
	"user": "userId", "request": "requestId", "err": "error",
}

var attributeName = regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)

func TestLogs_CallTheSameThingByTheSameName(t *testing.T) {
	root, found := filepath.Join("..", ".."), 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "gen" || entry.Name() == "node_modules" || strings.HasPrefix(entry.Name(), ".git")):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(node ast.Node) bool {
			name, ok := attribute(node)
			if !ok {
				return true
			}
			found++
			if right, other := otherNames[name]; other {
				t.Errorf("%s: %q is %q elsewhere", files.Position(node.Pos()), name, right)
			} else if !attributeName.MatchString(name) {
				t.Errorf("%s: %q is not in lowerCamelCase", files.Position(node.Pos()), name)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no attribute was found: is this still how they are written?")
	}
}

// attribute returns the name that a call such as slog.String("name", …) gives.
func attribute(node ast.Node) (name string, ok bool) {
	call, isCall := node.(*ast.CallExpr)
	if !isCall || len(call.Args) < 2 {
		return "", false
	}
	function, isSelector := call.Fun.(*ast.SelectorExpr)
	if !isSelector {
		return "", false
	}
	if pkg, isName := function.X.(*ast.Ident); !isName || pkg.Name != "slog" {
		return "", false
	}
	literal, isLiteral := call.Args[0].(*ast.BasicLit)
	if !isLiteral || literal.Kind != token.STRING {
		return "", false
	}
	name, err := strconv.Unquote(literal.Value)
	return name, err == nil
}
