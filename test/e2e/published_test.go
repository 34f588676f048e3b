package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// The examples of the published page, to the letter. Only what stands for
// something is put in: the host, the session token, codes and ids.
const (
	exampleAllocations = `curl https://your-panel.example.com/api/tunnel/allocations \
  -H "Cookie: session=<token>"`

	exampleDevices = `curl https://your-panel.example.com/api/tunnel/devices \
  -H "Cookie: session=<token>"`

	exampleStart = `curl -X POST https://your-panel.example.com/api/tunnel/device/start \
  -H "Cookie: session=<token>" \
  -H "Content-Type: application/json" \
  -d '{"name":"gaming-rig","kind":"client"}'`

	examplePoll = `curl "https://your-panel.example.com/api/tunnel/device/poll?deviceCode=<code>" \
  -H "Cookie: session=<token>"`

	exampleApprove = `curl -X POST https://your-panel.example.com/api/tunnel/device/approve \
  -H "Cookie: session=<token>" \
  -H "Content-Type: application/json" \
  -d '{"userCode":"ABCD-1234"}'`

	exampleDelete = `curl -X DELETE https://your-panel.example.com/api/tunnel/devices/abc-uuid/delete \
  -H "Cookie: session=<token>"`

	exampleRegenerate = `curl -X POST https://your-panel.example.com/api/tunnel/devices/abc-uuid/regenerate-token \
  -H "Cookie: session=<token>"`
)

// What the page says each field looks like.
const (
	number  = `^[0-9]+$`
	boolean = `^(true|false)$`
	yes     = `^true$`
	no      = `^false$`
	null    = `^null$`
	text    = `^".+"$`
	uuid    = `^"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"$`
	stamp   = `^"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z"$`
	code    = `^"[A-Z]{4}-[0-9]{4}"$`
	jwt     = `^"[\w-]+\.[\w-]+\.[\w-]+"$`
	object  = `^\{.*\}$`
)

type shape map[string]string

func TestPublishedPage_EveryExampleWorksAsPrinted(t *testing.T) {
	w := sharedFor(t)
	find(t, "curl")
	w.expose(t, "tcp", freePort(t), nil) // so that there is one to list
	example := func(printed string, put ...string) json.RawMessage {
		put = append(put, "https://your-panel.example.com", w.panel.URL, "<token>", w.panel.Token)
		return runExample(t, strings.NewReplacer(put...).Replace(printed))
	}

	for _, item := range items(t, example(exampleAllocations)) {
		fits(t, item, shape{"id": number, "port": number, "deviceId": uuid, "protocol": `^"(tcp|udp)"$`, "createdAt": stamp})
	}

	started := example(exampleStart)
	fits(t, started, shape{"deviceCode": text, "userCode": code, "expiresAt": stamp})
	deviceCode, userCode := field(t, started, "deviceCode"), field(t, started, "userCode")
	var pending json.RawMessage
	for _, item := range items(t, example(exampleDevices)) {
		fits(t, item, shape{"id": uuid, "name": text, "kind": `^"(client|server)"$`, "approved": boolean})
		if field(t, item, "userCode") == userCode {
			pending = item
		}
	}
	if pending == nil {
		t.Fatal("the device that was started is not listed")
	}
	fits(t, pending, shape{"name": `^"gaming-rig"$`, "kind": `^"client"$`, "approved": no, "userCode": code, "expiresAt": stamp})
	fits(t, example(examplePoll, "<code>", deviceCode), shape{"approved": no})

	approved := example(exampleApprove, "ABCD-1234", userCode)
	fits(t, approved, shape{"success": yes, "device": object})
	var device struct{ Device json.RawMessage }
	if err := json.Unmarshal(approved, &device); err != nil {
		t.Fatal(err)
	}
	fits(t, device.Device, shape{"id": uuid, "approved": yes, "userCode": null, "expiresAt": null})
	id := field(t, device.Device, "id")

	var polled json.RawMessage
	await.Within(t, patience, "token for the device", func(context.Context) (bool, error) {
		polled = example(examplePoll, "<code>", deviceCode)
		// Asked again within the interval: "slow down".
		return strings.Contains(string(polled), `"approved"`), nil
	})
	fits(t, polled, shape{"approved": yes, "token": jwt})

	fits(t, example(exampleRegenerate, "abc-uuid", id), shape{"success": yes, "token": jwt})
	fits(t, example(exampleDelete, "abc-uuid", id), shape{"success": yes})
	for _, item := range items(t, example(exampleDevices)) {
		if field(t, item, "id") == id {
			t.Error("the deleted device is still listed")
		}
	}
}

// runExample runs a command line as a person would who pasted it into a shell.
func runExample(t *testing.T, line string) json.RawMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", line).Output()
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	cluster.Kept().Received(out)
	if !json.Valid(out) {
		t.Fatalf("%s answered %q", line, out)
	}
	return out
}

// fits checks that an object has the fields of a shape; it may have more.
func fits(t *testing.T, object json.RawMessage, want shape) {
	t.Helper()
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(object, &fields); err != nil {
		t.Fatalf("%v in %s", err, object)
	}
	for name, pattern := range want {
		value, ok := fields[name]
		if !ok || !regexp.MustCompile(`(?s)`+pattern).Match(value) {
			t.Errorf("field %s is %q, want %s; in %s", name, value, pattern, object)
		}
	}
}

func items(t *testing.T, array json.RawMessage) []json.RawMessage {
	t.Helper()
	var list []json.RawMessage
	if err := json.Unmarshal(array, &list); err != nil || len(list) == 0 {
		t.Fatalf("not a list of anything: %v in %s", err, array)
	}
	return list
}

// field returns a string field's value, "" where it is null or missing.
func field(t *testing.T, object json.RawMessage, name string) string {
	t.Helper()
	fields := make(map[string]any)
	if err := json.Unmarshal(object, &fields); err != nil {
		t.Fatalf("%v in %s", err, object)
	}
	value, _ := fields[name].(string)
	return value
}

func TestPublishedPage_ErrorsHaveOneShape(t *testing.T) {
	w := sharedFor(t)
	panel := w.panel.URL
	session := `-H "Cookie: session=` + w.panel.Token + `"`
	for name, c := range map[string]struct{ line, status, code string }{
		"no credential":    {`curl -s -w '\n%{http_code}' ` + panel + `/api/tunnel/devices`, "401", "unauthorized"},
		"unknown device":   {`curl -s -w '\n%{http_code}' -X DELETE ` + session + ` ` + panel + `/api/tunnel/devices/7b7a5a4e-0f43-4b59-9a1d-94ac5f1e3e1b/delete`, "404", "not_found"},
		"not a UUID":       {`curl -s -w '\n%{http_code}' -X DELETE ` + session + ` ` + panel + `/api/tunnel/devices/abc-uuid/delete`, "400", "invalid_request"},
		"wrong method":     {`curl -s -w '\n%{http_code}' -X PUT ` + session + ` ` + panel + `/api/tunnel/devices`, "405", "method_not_allowed"},
		"wrong media type": {`curl -s -w '\n%{http_code}' ` + session + ` -H "Content-Type: text/plain" -d hello ` + panel + `/api/tunnel/device/start`, "415", "unsupported_media_type"},
		"unknown field":    {`curl -s -w '\n%{http_code}' ` + session + ` -H "Content-Type: application/json" -d '{"name":"x","colour":"red"}' ` + panel + `/api/tunnel/device/start`, "400", "invalid_request"},
		"unknown query":    {`curl -s -w '\n%{http_code}' ` + session + ` '` + panel + `/api/tunnel/devices?colour=red'`, "400", "invalid_request"},
		"wrong user code":  {`curl -s -w '\n%{http_code}' ` + session + ` -H "Content-Type: application/json" -d '{"userCode":"BCDF-0000"}' ` + panel + `/api/tunnel/device/approve`, "404", "not_found"},
		"no such page":     {`curl -s -w '\n%{http_code}' ` + panel + `/api/nothing`, "404", "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(within(t, patience), "sh", "-c", c.line).Output()
			if err != nil {
				t.Fatalf("%s: %v", c.line, err)
			}
			line := strings.LastIndexByte(string(out), '\n')
			body, status := string(out[:line]), string(out[line+1:])
			if status != c.status {
				t.Errorf("status %s, want %s", status, c.status)
			}
			fits(t, json.RawMessage(body), shape{"error": fmt.Sprintf("^%q$", c.code), "message": text, "requestId": text})
		})
	}
}

// RFC 8628 section 3.5: a device that polls too fast gets slow_down and Retry-After.
func TestPublishedPage_PollingTooFastIsToldToSlowDown(t *testing.T) {
	w := sharedFor(t)
	start := strings.NewReplacer("https://your-panel.example.com", w.panel.URL, "<token>", w.panel.Token).Replace(exampleStart)
	deviceCode := field(t, runExample(t, start), "deviceCode")
	var answers []string
	for range 2 {
		out := command(t, patience, "curl", "-si", w.panel.URL+"/api/tunnel/device/poll?deviceCode="+deviceCode)
		answers = append(answers, out)
	}
	if !strings.Contains(answers[0], `"approved":false`) {
		t.Errorf("the first poll was answered\n%s", answers[0])
	}
	second := strings.Split(answers[1], "\r\n")
	if !strings.Contains(second[0], " 429 ") || !strings.Contains(answers[1], `"slow_down"`) ||
		!slices.ContainsFunc(second, func(line string) bool { return regexp.MustCompile(`^Retry-After: [1-9]`).MatchString(line) }) {
		t.Errorf("the second poll was answered\n%s", answers[1])
	}
}
