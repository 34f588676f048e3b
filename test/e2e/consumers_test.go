package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// consumers is where the programs of others are pinned that read the contract.
const consumers = "../../tools/consumers"

// installPatience bounds npm ci.
const installPatience = 5 * time.Minute

// consumer returns the path of a program of tools/consumers, which it installs if need be.
func consumer(t *testing.T, name string) string {
	t.Helper()
	npm := find(t, "npm")
	program, err := filepath.Abs(filepath.Join(consumers, "node_modules", ".bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		run(t, consumers, npm, "ci", "--silent")
	}
	return program
}

// run runs a program to its end, which must be a good one.
func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(within(t, installPatience), program, args...)
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, output)
	}
}

// TestContract_AGeneratorOfOthersWritesAClientThatCompiles generates a TypeScript client
// with a generator that this project does not use, from what the panel serves.
func TestContract_AGeneratorOfOthersWritesAClientThatCompiles(t *testing.T) {
	t.Parallel()
	generator, compiler := consumer(t, "openapi-ts"), consumer(t, "tsc")
	dir := clustertest.Dir(t)
	writeFile(t, filepath.Join(dir, "contract.json"), []byte(pageOf(t, sharedFor(t).panel.URL+"/openapi.json")), 0o600)
	run(t, dir, generator, "-i", "contract.json", "-o", "client", "-p", "@hey-api/typescript", "@hey-api/sdk", "@hey-api/client-fetch")
	source, err := os.ReadFile(filepath.Join(dir, "client", "sdk.gen.ts"))
	if err != nil || !strings.Contains(string(source), "createAllocation") {
		t.Fatalf("it wrote no client: %v", err)
	}
	run(t, dir, compiler, "--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "client/index.ts")
}

// TestContract_AGeneratorOfOthersWritesGoThatCompiles is the same with another generator for Go.
func TestContract_AGeneratorOfOthersWritesGoThatCompiles(t *testing.T) {
	t.Parallel()
	program, dir := find(t, "go"), clustertest.Dir(t)
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(consumers, "ogen", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), text, 0o600)
	}
	writeFile(t, filepath.Join(dir, "contract.json"), []byte(pageOf(t, sharedFor(t).panel.URL+"/openapi.json")), 0o600)
	run(t, dir, program, "tool", "ogen", "--target", "api", "--package", "api", "contract.json")
	source, err := os.ReadFile(filepath.Join(dir, "api", "oas_client_gen.go"))
	if err != nil || !strings.Contains(string(source), "CreateAllocation(") {
		t.Fatalf("it wrote no client: %v", err)
	}
	run(t, dir, program, "build", "./api")
}
