package webhooks_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// example returns the block of a language in docs/webhooks.md.
func example(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../../../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(page), "```"+language+"\n")
	block, _, ends := strings.Cut(rest, "```")
	if !begins || !ends {
		t.Fatalf("docs/webhooks.md has no example in %s", language)
	}
	return block
}

// TestDocs_TheExamplesCheckSignatures runs the function for Node on a message, and compiles the program in Go.
func TestDocs_TheExamplesCheckSignatures(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "receiver"), write("receiver.go", example(t, "go")))
	if out, err := program.CombinedOutput(); err != nil {
		t.Errorf("the example in Go: %v: %s", err, out)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no Node")
	}
	f, r := newFleet(t), newReceiver(t)
	hook := f.webhook(db.APIKeyOwner{}, types.WebhookStandard, r.url, quotaReached)
	f.start().try(hook)
	got := await.Receive(t, r.got, "message")
	headers := map[string]string{}
	for name := range got.header {
		headers[strings.ToLower(name)] = got.header.Get(name)
	}
	call, err := json.Marshal([]any{hook.Secret, headers, string(got.body)})
	if err != nil {
		t.Fatal(err)
	}
	script := write("verify.mjs", example(t, "js")+"\nconst [secret, headers, body] = "+string(call)+
		"\nconsole.log(verify(secret, headers, Buffer.from(body)), verify(secret, headers, Buffer.from(body + ' ')))\n")
	out, err := exec.CommandContext(t.Context(), node, script).CombinedOutput()
	if err != nil || string(out) != "true false\n" {
		t.Errorf("the example for Node: %v: %s", err, out)
	}
}
