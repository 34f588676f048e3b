package handler_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

var update = flag.Bool("update", false, "write the table of openapi.yaml from the policy of package auth")

// policyRow is a row of the table with the operation that it is about.
type policyRow struct {
	operation, method, path string
	what                    string // The case; "" for the operation itself.
	rule                    auth.Rule
	scopes                  auth.Scopes
}

func (r policyRow) String() string {
	if r.what == "" {
		return r.operation
	}
	return r.operation + ", " + r.what
}

// policyRows returns the table's rows for the contract's operations, in its order. It
// reports operations without one.
func policyRows(t *testing.T) []policyRow {
	t.Helper()
	var rows []policyRow
	var r policyRow
	line := regexp.MustCompile(`^  (/\S*):$|^    (get|post|put|patch|delete):$|^      operationId: (\w+)$`)
	for text := range strings.Lines(string(eclitunnel.OpenAPI)) {
		switch match := line.FindStringSubmatch(strings.TrimSuffix(text, "\n")); {
		case match == nil:
		case match[1] != "":
			r.path = match[1]
		case match[2] != "":
			r.method = strings.ToUpper(match[2])
		default:
			for _, what := range append([]string{""}, auth.Cases...) {
				r.operation, r.what = match[3], what
				rule, ok := auth.RuleOf(r.operation, what)
				if ok {
					r.rule, r.scopes = rule, auth.ScopesOf(r.operation, what)
					rows = append(rows, r)
				} else if what == "" {
					t.Errorf("the policy has no row for %s", r.operation)
				}
			}
		}
	}
	for _, r := range rows {
		if slices.Contains(r.rule[:], 0) {
			t.Errorf("the row of %s is not filled", r)
		}
	}
	return rows
}

// The lines between which the contract has the table.
const (
	tableBegin = "    <!-- begin: go test ./server/internal/handler -update -->\n"
	tableEnd   = "    <!-- end: go test ./server/internal/handler -update -->\n"
)

// policyTable writes the table for readers of the contract.
func policyTable(rows []policyRow) string {
	names := [auth.Callers]string{
		auth.NoCredential: "no credential", auth.EndedSession: "ended session", auth.Stranger: "other user",
		auth.Member: "member", auth.OrgAdmin: "organisation's admin", auth.Owner: "owner", auth.SiteAdmin: "admin",
		auth.OwnClient: "own tunnel client", auth.OwnServer: "own tunnel server", auth.OtherDevice: "other device",
	}
	answers := map[auth.Answer]string{auth.Allowed: "yes", auth.Unlisted: "yes, without it"}
	var table strings.Builder
	fmt.Fprintf(&table, "    | request | %s | API key's scope |\n    |---|%s---|\n", strings.Join(names[:], " | "), strings.Repeat("---|", len(names)))
	for _, r := range rows {
		if r.rule.Public() {
			continue
		}
		fmt.Fprintf(&table, "    | `%s %s`", r.method, r.path)
		if r.what != "" {
			fmt.Fprintf(&table, ", %s", r.what)
		}
		for _, answer := range r.rule {
			text, ok := answers[answer]
			if !ok {
				text = strconv.Itoa(int(answer))
			}
			fmt.Fprintf(&table, " | %s", text)
		}
		scopes := "no key"
		if names := r.scopes.Names(); len(names) > 0 {
			scopes = "`" + strings.Join(names, "` or `") + "`"
		}
		fmt.Fprintf(&table, " | %s |\n", scopes)
	}
	return table.String()
}

func TestPolicy_IsTheTableOfTheContract(t *testing.T) {
	contract := string(eclitunnel.OpenAPI)
	before, rest, begins := strings.Cut(contract, tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("openapi.yaml has no table between %q and %q", tableBegin, tableEnd)
	}
	fresh := before + tableBegin + "\n" + policyTable(policyRows(t)) + "\n" + tableEnd + after
	if fresh == contract {
		return
	}
	if !*update || t.Failed() {
		t.Fatal("the table of openapi.yaml differs from the policy of package auth; run make generate")
	}
	if err := os.WriteFile("../../../openapi.yaml", []byte(fresh), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPolicy_AgreesWithWhatTheContractSaysOfOperations compares the rows with each
// operation's credentials, responses and text.
func TestPolicy_AgreesWithWhatTheContractSaysOfOperations(t *testing.T) {
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	manages := regexp.MustCompile(`manages|owner\s+or\s+admin`)
	for _, r := range policyRows(t) {
		op := doc.Paths.Value(r.path).GetOperation(r.method)
		for _, answer := range r.rule {
			if answer >= http.StatusBadRequest && op.Responses.Status(int(answer)) == nil {
				t.Errorf("%s has no response %d", r, answer)
			}
		}
		if !r.rule.Public() && op.Responses.Status(http.StatusForbidden) == nil {
			t.Errorf("%s has no response to API keys without a scope", r)
		}
		if r.what != "" {
			continue
		}
		security := doc.Security
		if op.Security != nil {
			security = *op.Security
		}
		if got, want := schemes(security), wantedSchemes(r); !slices.Equal(got, want) {
			t.Errorf("%s takes the credentials %q, and %q by the policy", r, got, want)
		}
		admins := r.rule[auth.SiteAdmin] == auth.Allowed && r.rule[auth.Owner] == http.StatusForbidden
		if said := strings.Contains(op.Description, "Requires an admin."); said != admins {
			t.Errorf("%s says that it requires an admin: %v, and the policy: %v", r, said, admins)
		}
		managed := r.rule[auth.Owner] == auth.Allowed && r.rule[auth.Stranger] != auth.Allowed
		if managed && !manages.MatchString(op.Description) {
			t.Errorf("%s does not say that it is for who manages something", r)
		}
		seen := r.rule[auth.Member] == auth.Allowed && r.rule[auth.Stranger] != auth.Allowed
		if seen && !strings.Contains(op.Description, "member") {
			t.Errorf("%s does not say that it is for members", r)
		}
	}
}

func schemes(security openapi3.SecurityRequirements) []string {
	var names []string
	for _, requirement := range security {
		if len(requirement) == 0 {
			names = append(names, "none")
		}
		for name := range requirement {
			names = append(names, name)
		}
	}
	return names
}

// wantedSchemes returns the credentials that an operation takes by its rule.
func wantedSchemes(r policyRow) []string {
	rule := r.rule
	if rule.Public() {
		return nil
	}
	var names []string
	if rule[auth.NoCredential] == auth.Allowed {
		names = append(names, "none")
	}
	if rule[auth.SiteAdmin] != http.StatusForbidden {
		names = append(names, "sessionCookie", "bearerAuth")
	}
	if rule[auth.OwnClient] != http.StatusForbidden {
		names = append(names, "deviceToken")
	}
	if len(r.scopes.Names()) > 0 {
		names = append(names, "apiKey", "apiKeyBearer")
	}
	return names
}
