package contracttest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/internal/contracttest"
)

// recorder is a testing.TB that remembers what was reported.
type recorder struct {
	testing.TB
	reports []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.reports = append(r.reports, fmt.Sprintf(format, args...))
}

// answer is a RoundTripper with one answer.
type answer struct {
	status int
	body   string
}

func (a answer) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status,
		Header:     http.Header{"Content-Type": {"application/json"}},
		Body:       io.NopCloser(strings.NewReader(a.body)),
		Request:    request,
	}, nil
}

// device is a tunnel client as JSON, with the value of `server`.
func device(server string) string {
	return `{"id":"3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11","name":"a","kind":"client","approved":true,"userCode":null,
		"expiresAt":null,"createdAt":"2026-01-02T03:04:05Z","ownerId":1,"organisationId":null,"online":false,
		"lastSeenAt":null,"agentVersion":null,"agentOutdated":false,"platform":null,"address":null,"connectedSince":null,
		"disconnectReason":null,"server":` + server + `}`
}

const someError = `{"error":"not_found","message":"No.","requestId":"1"}`

func TestTransport_ReportsWhatTheContractDoesNotDescribe(t *testing.T) {
	for name, test := range map[string]struct {
		method, path string
		answer       answer
		reported     bool
	}{
		"as described":            {"GET", "/healthz", answer{200, `{"status":"ok"}`}, false},
		"a field missing":         {"GET", "/healthz", answer{200, `{}`}, true},
		"a field more":            {"GET", "/healthz", answer{200, `{"status":"ok","more":1}`}, false},
		"a status not listed":     {"GET", "/healthz", answer{500, someError}, true},
		"an unknown error code":   {"GET", "/api/tunnel/devices", answer{401, `{"error":"oops","message":"","requestId":""}`}, true},
		"a wrong method":          {"PUT", "/healthz", answer{405, someError}, false},
		"a wrong method, no body": {"PUT", "/healthz", answer{405, ``}, true},
		"a body too large":        {"POST", "/api/auth/login", answer{413, `{"error":"payload_too_large","message":"","requestId":""}`}, false},
		"a body not JSON":         {"POST", "/api/auth/login", answer{415, `{"error":"unsupported_media_type","message":"","requestId":""}`}, false},
		"a panel that fails":      {"GET", "/healthz", answer{500, `{"error":"internal_error","message":"","requestId":""}`}, true},
		"an error of elsewhere":   {"GET", "/healthz", answer{409, `{"error":"conflict","message":"","requestId":""}`}, true},
		"no error":                {"POST", "/api/auth/login", answer{413, `{}`}, true},
		"an unknown path":         {"GET", "/api/nothing", answer{404, someError}, false},
		"an unknown path, found":  {"GET", "/api/nothing", answer{200, `{}`}, true},
		"null where it may be":    {"GET", "/api/tunnel/devices/3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11", answer{200, device("null")}, false},
		"an empty object":         {"GET", "/api/tunnel/devices/3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11", answer{200, device("{}")}, true},
		"the console":             {"GET", "/devices", answer{200, `<html>`}, false},
		"null for a list":         {"GET", "/api/tunnel/devices", answer{200, `null`}, true},
		"a key without its parts": {"GET", "/.well-known/jwks.json", answer{200, `{"keys":[{"kty":1}]}`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			reports := &recorder{TB: t}
			client := &http.Client{Transport: contracttest.Transport(reports, test.answer)}
			request, err := http.NewRequestWithContext(t.Context(), test.method, "http://panel"+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if body, _ := io.ReadAll(response.Body); string(body) != test.answer.body {
				t.Errorf("the answer was changed to %q", body)
			}
			if got := len(reports.reports) > 0; got != test.reported {
				t.Errorf("reported %v, want %v: %q", got, test.reported, reports.reports)
			}
		})
	}
}

// TestContract_OperationsDescribeEveryError holds what generated clients rely on: an
// error without a response of its own has the body of every other error.
func TestContract_OperationsDescribeEveryError(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			failure := operation.Responses.Default()
			if failure == nil || failure.Value.Content.Get("application/json") == nil {
				t.Errorf("%s %s has no response for other errors", method, path)
			}
		}
	}
}
