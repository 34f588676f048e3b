package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
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

// TestContract_AValidatingProxyFindsNoViolation sends requests through Prism, which holds
// them and the panel's answers to the contract, and answers itself where they break it.
func TestContract_AValidatingProxyFindsNoViolation(t *testing.T) {
	w := sharedFor(t)
	ctx := within(t, 5*time.Minute)
	port, err := cluster.FreePorts(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	contract, err := filepath.Abs("../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, port, consumer(t, "prism"), "proxy", contract, w.panel.URL, "--errors", "-h", "127.0.0.1", "-p", strconv.Itoa(port))
	ids := map[string]string{"{device}": w.agent.Device.ID.String()}
	for _, step := range []struct{ method, path, body, keep string }{
		{"GET", "/healthz", "", ""},
		{"GET", "/readyz", "", ""},
		{"GET", "/api/version", "", ""},
		{"GET", "/openapi.json", "", ""},
		{"GET", "/openapi.yaml", "", ""},
		{"GET", "/.well-known/jwks.json", "", ""},
		{"GET", "/api/auth/session", "", ""},
		{"GET", "/api/auth/providers", "", ""},
		{"GET", "/api/account", "", ""},
		{"GET", "/api/account/sessions?limit=1", "", ""},
		{"GET", "/api/account/quota", "", ""},
		{"GET", "/api/admin/settings", "", ""},
		{"PATCH", "/api/admin/settings", `{"features":{"tunnels":true}}`, ""},
		{"POST", "/api/users", `{"email":"prism@example.com"}`, "{user}"},
		{"GET", "/api/users?limit=1", "", ""},
		{"GET", "/api/users/{user}", "", ""},
		{"GET", "/api/users/{user}/quota", "", ""},
		{"PATCH", "/api/users/{user}/quota", `{"devices":3}`, ""},
		{"DELETE", "/api/users/{user}", "", ""},
		{"GET", "/api/users/{user}", "", ""}, // 404
		{"POST", "/api/organisations", `{"name":"prism"}`, "{organisation}"},
		{"GET", "/api/organisations", "", ""},
		{"GET", "/api/organisations/{organisation}/members", "", ""},
		{"POST", "/api/organisations/{organisation}/invitations", `{"role":"member"}`, ""},
		{"GET", "/api/organisations/{organisation}/invitations", "", ""},
		{"GET", "/api/organisations/{organisation}/rules", "", ""},
		{"PATCH", "/api/organisations/{organisation}/rules", `{"maxPlayers":12}`, ""},
		{"GET", "/api/organisations/{organisation}/quota", "", ""},
		{"POST", "/api/keys", `{"name":"prism","scopes":["read"]}`, "{key}"},
		{"GET", "/api/keys", "", ""},
		{"DELETE", "/api/keys/{key}", "", ""},
		{"GET", "/api/tunnel/devices", "", ""},
		{"GET", "/api/tunnel/devices/{device}", "", ""},
		{"PATCH", "/api/tunnel/devices/{device}", `{"name":"home-server"}`, ""},
		{"POST", "/api/tunnel/device/start", `{"name":"prism"}`, ""},
		{"POST", "/api/tunnel/allocations", `{"deviceId":"{device}","protocol":"tcp","localPort":9,"options":{"proxyProtocol":"v2"}}`, "{allocation}"},
		{"GET", "/api/tunnel/allocations?limit=1", "", ""},
		{"GET", "/api/tunnel/allocations/{allocation}", "", ""},
		{"PATCH", "/api/tunnel/allocations/{allocation}", `{"localPort":10}`, ""},
		{"DELETE", "/api/tunnel/allocations/{allocation}", "", ""},
		{"GET", "/api/tunnel/allocations/{allocation}", "", ""}, // 404
		{"GET", "/api/audit?limit=50", "", ""},
	} {
		id := viaProxy(t, w, "http://"+loopback(port), step.method, fill(step.path, ids), fill(step.body, ids))
		if step.keep != "" {
			ids[step.keep] = id
		}
	}
}

func fill(text string, ids map[string]string) string {
	for name, id := range ids {
		text = strings.ReplaceAll(text, name, id)
	}
	return text
}

// viaProxy sends a request of the admin through the proxy, and returns the field id of the
// answer. The proxy answers 500 where request or answer break the contract.
func viaProxy(t *testing.T, w *world, proxy, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, patience), method, proxy+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.panel.Token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if violations := resp.Header.Get("sl-violations"); violations != "" || resp.StatusCode >= 500 || resp.StatusCode == http.StatusBadRequest {
		t.Errorf("%s %s: %s: %s%.300s", method, path, resp.Status, violations, text)
	}
	var answer struct{ ID json.Number }
	if method == http.MethodPost {
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
	}
	return answer.ID.String()
}
