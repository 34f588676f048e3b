package web_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

var update = flag.Bool("update", false, "write docs/errors.md and static/errors.html from the contract")

// errorHelp is what the contract says of a code.
type errorHelp struct {
	code, status, meaning string
	Retry, Do             string
}

// retries are the values of the field retry.
var retries = map[string]string{
	"never":  "No: the same request fails again.",
	"change": "Only after the cause has been removed.",
	"wait":   "Yes, later: after `Retry-After` if the response has it, otherwise with exponential back-off.",
}

// catalogue reads the schema ErrorCode: the table has the statuses and meanings, x-error-help the rest.
func catalogue(t *testing.T) []errorHelp {
	t.Helper()
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	schema := doc.Components.Schemas["ErrorCode"].Value
	text, err := json.Marshal(schema.Extensions["x-error-help"])
	if err != nil {
		t.Fatal(err)
	}
	var help map[string]errorHelp
	if err := json.Unmarshal(text, &help); err != nil {
		t.Fatal(err)
	}
	var all []errorHelp
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\d{3}) \\| (.*) \\|$").FindAllStringSubmatch(schema.Description, -1) {
		e := help[row[1]]
		e.code, e.status, e.meaning = row[1], row[2], row[3]
		if retries[e.Retry] == "" || e.Do == "" {
			t.Errorf("x-error-help lacks %s, or its retry is not one of never, change and wait", e.code)
		}
		all = append(all, e)
	}
	if len(all) != len(schema.Enum) || len(all) != len(help) {
		t.Errorf("ErrorCode has %d codes, a table of %d, and help for %d", len(schema.Enum), len(all), len(help))
	}
	return all
}

// TestErrorPages_AreOfTheContract holds both pages to the contract.
func TestErrorPages_AreOfTheContract(t *testing.T) {
	codes := catalogue(t)
	for path, fresh := range map[string]string{
		"../../../docs/errors.md": errorsMarkdown(codes),
		"static/errors.html":      errorsHTML(codes),
	} {
		if *update {
			if err := os.WriteFile(path, []byte(fresh), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, []byte(fresh)) {
			t.Errorf("%s is not what the contract says (%v): run make generate, and commit it", path, err)
		}
	}
}

// TestErrorPages_HaveAnAnchorForEachCode asks the panel's page.
func TestErrorPages_HaveAnAnchorForEachCode(t *testing.T) {
	page := get(t, http.MethodGet, "/errors", nil).Body.String()
	for _, e := range catalogue(t) {
		if strings.Count(page, `id="`+e.code+`"`) != 1 {
			t.Errorf("/errors has no place #%s", e.code)
		}
	}
}

func errorsMarkdown(codes []errorHelp) string {
	var b strings.Builder
	b.WriteString(`# Errors

<!-- Written by make generate from the schema ErrorCode of openapi.yaml. -->

Every error response of the API has a body with a stable code in ` + "`error`" + `, a sentence for people in ` + "`message`" + `, and the
` + "`requestId`" + ` that identifies the request in the panel's log. A panel serves this page at ` + "`/errors`" + `, to which the header
` + "`Link`" + ` of every error response points. Later versions may add codes: handle an unknown one by its status.

`)
	for _, e := range codes {
		fmt.Fprintf(&b, "## %s\n\n**%s.** %s\n\n%s\n\nRetry? %s\n\n", e.code, e.status, e.meaning, e.Do, retries[e.Retry])
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func errorsHTML(codes []errorHelp) string {
	var b strings.Builder
	b.WriteString(`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Errors · EcliTunnel</title>
  <link rel="stylesheet" href="/assets/panel.css">
</head>
<body>
  <main class="wide">
    <p class="brand">EcliTunnel</p>
    <h1>Errors of the API</h1>
    <p>Every error response has a body with a stable code in <code>error</code>, a sentence for people in
      <code>message</code>, and the <code>requestId</code> that identifies the request in the panel's log. Later versions
      may add codes: handle an unknown one by its status.</p>
`)
	for _, e := range codes {
		fmt.Fprintf(&b, `    <section id="%[1]s">
      <h2><a href="#%[1]s">%[1]s</a></h2>
      <p class="hint">Status %[2]s. %[3]s</p>
      <p>%[4]s</p>
      <p class="hint">Retry? %[5]s</p>
    </section>
`, e.code, e.status, inline(e.meaning), inline(e.Do), inline(retries[e.Retry]))
	}
	b.WriteString(`    <p><a href="/">To the start page</a></p>
  </main>
</body>
</html>
`)
	return b.String()
}

// inline returns a line of Markdown as HTML.
func inline(text string) string {
	text = html.EscapeString(text)
	text = regexp.MustCompile("`([^`]+)`").ReplaceAllString(text, "<code>$1</code>")
	return regexp.MustCompile(`\*([^*]+)\*`).ReplaceAllString(text, "<em>$1</em>")
}
