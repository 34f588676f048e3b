package validate_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// deprecating is a contract in which an operation and a parameter are deprecated, by the operations of the policy.
const deprecating = `
openapi: 3.0.3
info: { title: test, version: 0.1.0 }
paths:
  /api/version:
    get:
      operationId: getVersion
      deprecated: true
      x-deprecated-since: '2026-12-01'
      x-sunset: '2028-01-01'
      externalDocs: { url: 'https://example.com/new' }
      parameters:
        - { name: old, in: query, deprecated: true, x-deprecated-since: '2026-12-01', x-sunset: '2027-12-31', schema: { type: string } }
      responses: { '200': { description: ok } }
  /healthz:
    get:
      operationId: getHealth
      parameters:
        - { name: old, in: query, deprecated: true, x-deprecated-since: '2026-12-01', x-sunset: '2027-12-31', schema: { type: string } }
      responses: { '200': { description: ok } }
`

func TestDeprecation_IsToldToWhoUsesIt(t *testing.T) {
	mux, err := validate.New(validate.Options{Contract: []byte(deprecating), Authenticator: tokens{}})
	if err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "<next>") // As the handlers of lists do.
		_, _ = w.Write(nil)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { problem.Write(w, r, problem.NotFound("No.")) })
	const (
		since  = "@1796083200" // 2026-12-01
		end    = "Sat, 01 Jan 2028 00:00:00 GMT"
		before = "Fri, 31 Dec 2027 00:00:00 GMT"
		help   = `</errors#not_found>; rel="help"`
	)
	for target, want := range map[string][3]string{
		"/api/version":       {since, end, `<next>, <https://example.com/new>; rel="deprecation"`},
		"/api/version?old=1": {since, before, `<next>, <https://example.com/new>; rel="deprecation"`},
		"/healthz":           {"", "", help},
		"/healthz?old=1":     {since, before, help + `, </openapi.json>; rel="deprecation"`},
	} {
		response, _ := send(t, mux, http.MethodGet, target, "")
		h := response.Header()
		if got := [3]string{h.Get("Deprecation"), h.Get("Sunset"), strings.Join(h.Values("Link"), ", ")}; got != want {
			t.Errorf("%s has %q, want %q", target, got, want)
		}
	}
}

func TestDeprecation_NeedsDates(t *testing.T) {
	for name, change := range map[string][2]string{
		"no sunset":         {"x-sunset: '2028-01-01'", ""},
		"no since":          {"x-deprecated-since: '2026-12-01'\n      x-sunset", "x-sunset"},
		"not a date":        {"'2028-01-01'", "soon"},
		"gone before":       {"'2028-01-01'", "'2026-11-30'"},
		"of a parameter":    {", x-sunset: '2027-12-31'", ""},
		"without the mark":  {"deprecated: true\n", "\n"},
		"unmarked and gone": {"deprecated: true, x-", "x-"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(deprecating, change[0], change[1], 1)
			if text == deprecating {
				t.Fatal("the contract is unchanged")
			}
			mux, err := validate.New(validate.Options{Contract: []byte(text), Authenticator: tokens{}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if recover() == nil {
					t.Error("it was accepted")
				}
			}()
			mux.HandleFunc("GET /api/version", accept)
		})
	}
}
