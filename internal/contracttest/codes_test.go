package contracttest

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/eclitunnel/eclitunnel"
)

// statuses returns the status of every error code, from the table of ErrorCode.
func statuses(t *testing.T) map[string]int {
	t.Helper()
	table := map[string]int{}
	schema := document(t).Components.Schemas["ErrorCode"].Value
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\d{3}) \\|").FindAllStringSubmatch(schema.Description, -1) {
		table[row[1]], _ = strconv.Atoi(row[2])
	}
	for _, code := range schema.Enum {
		if _, ok := table[code.(string)]; !ok {
			t.Errorf("the table of ErrorCode lacks %s", code)
		}
	}
	if len(table) != len(schema.Enum) {
		t.Errorf("the table of ErrorCode has %d codes, and its enum %d", len(table), len(schema.Enum))
	}
	return table
}

// TestContract_ErrorsShowTheirCodes: every code stands on the responses of its own
// status, with an example there, and no example shows a code that the response does not
// have. Transport holds the panel to the same lists.
func TestContract_ErrorsShowTheirCodes(t *testing.T) {
	table := statuses(t)
	used := map[string]bool{}
	operations(t, func(op *openapi3.Operation, _ openapi3.Parameters) {
		if op.Responses.Default() == nil {
			t.Errorf("%s has no default response, and can fail with 405 and 500", op.OperationID)
		}
		for key, ref := range op.Responses.Map() {
			status, err := strconv.Atoi(key)
			isDefault := err != nil
			if !isDefault && status < http.StatusBadRequest {
				continue
			}
			listed := codes(ref.Value)
			if len(listed) == 0 {
				t.Errorf("%s: the response %s lists no codes", op.OperationID, key)
			}
			var shown []string
			for _, example := range examples(ref.Value.Content) {
				code, _ := example.(map[string]any)["error"].(string)
				if !slices.Contains(shown, code) {
					shown = append(shown, code)
				}
			}
			if !slices.Equal(slices.Sorted(slices.Values(listed)), slices.Sorted(slices.Values(shown))) {
				t.Errorf("%s: the response %s has the codes %v, and examples of %v", op.OperationID, key, listed, shown)
			}
			for _, code := range listed {
				used[code] = true
				switch of, ok := table[code]; {
				case !ok:
					t.Errorf("%s: the response %s has the unknown code %s", op.OperationID, key, code)
				case isDefault != (op.Responses.Status(of) == nil) || !isDefault && of != status:
					t.Errorf("%s: the response %s has the code %s of status %d", op.OperationID, key, code, of)
				}
			}
		}
	})
	for code := range table {
		if !used[code] {
			t.Errorf("no operation can fail with %s", code)
		}
	}
}

// TestContract_TextsNameExistingErrors reads the errors in prose, such as
// `409 port_taken`: each has the status of its code, and where an operation names it,
// the operation has a response with it.
func TestContract_TextsNameExistingErrors(t *testing.T) {
	table := statuses(t)
	mention := regexp.MustCompile("`(\\d{3}) (\\w+)`")
	for _, match := range mention.FindAllStringSubmatch(string(eclitunnel.OpenAPI), -1) {
		if status, _ := strconv.Atoi(match[1]); table[match[2]] != status {
			t.Errorf("the contract mentions %s", match[0])
		}
	}
	operations(t, func(op *openapi3.Operation, _ openapi3.Parameters) {
		for _, match := range mention.FindAllStringSubmatch(op.Description, -1) {
			response := op.Responses.Value(match[1])
			if response == nil || !slices.Contains(codes(response.Value), match[2]) {
				t.Errorf("%s mentions %s, which it does not answer", op.OperationID, match[0])
			}
		}
	})
}

// TestContract_PeopleFromIdentityProvidersMayBeRefusedEverywhere: a provider answers for its
// people before any operation sees the request.
func TestContract_PeopleFromIdentityProvidersMayBeRefusedEverywhere(t *testing.T) {
	document := document(t)
	found := 0
	operations(t, func(op *openapi3.Operation, _ openapi3.Parameters) {
		security := op.Security
		if security == nil {
			security = &document.Security
		}
		if !slices.ContainsFunc(*security, func(r openapi3.SecurityRequirement) bool { _, ok := r["sessionCookie"]; return ok }) {
			return
		}
		found++
		response := op.Responses.Status(http.StatusForbidden)
		for _, code := range []string{"forbidden", "kyc_required", "email_taken"} {
			if response == nil || !slices.Contains(codes(response.Value), code) {
				t.Errorf("%s takes sessions, and has no 403 %s", op.OperationID, code)
			}
		}
	})
	if found < 20 {
		t.Errorf("found %d operations for people, want at least 20", found)
	}
}
