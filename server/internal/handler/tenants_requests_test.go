package handler_test

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// tenantOperation is an operation of the contract with the examples of its bodies.
type tenantOperation struct {
	method, path string
	bodies       []any
	fields       []string // The names of the body's fields.
	query        []string // The names of parameters that name something of a tenant.
}

// tenantOperations returns those that a tenant can send in any order.
func tenantOperations(t *testing.T) []tenantOperation {
	t.Helper()
	doc, err := validate.Load(eclitunnel.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	var operations []tenantOperation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		for method, operation := range doc.Paths.Value(path).Operations() {
			if operation.OperationID == "connectControlChannel" || !strings.HasPrefix(path, "/api/") {
				continue
			}
			o := tenantOperation{method: method, path: path}
			if operation.RequestBody != nil {
				media := operation.RequestBody.Value.Content.Get("application/json")
				o.bodies, o.fields = examplesOf(media), slices.Sorted(maps.Keys(media.Schema.Value.Properties))
			}
			for _, parameter := range operation.Parameters {
				if _, ok := fieldKinds[parameter.Value.Name]; ok && parameter.Value.In == openapi3.ParameterInQuery {
					o.query = append(o.query, parameter.Value.Name)
				}
			}
			operations = append(operations, o)
			if strings.Contains(path, "{") { // More often, since it is about something of a tenant.
				operations = append(operations, o, o)
			}
		}
	}
	slices.SortFunc(operations, func(a, b tenantOperation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return operations
}

func examplesOf(media *openapi3.MediaType) []any {
	var bodies []any
	if media.Example != nil {
		bodies = append(bodies, media.Example)
	}
	for _, name := range slices.Sorted(maps.Keys(media.Examples)) {
		bodies = append(bodies, media.Examples[name].Value.Value)
	}
	return bodies
}

// tenantRequest is a request, and the same with ids that do not exist in place of B's.
type tenantRequest struct {
	method, path, absentPath string
	body, absentBody         any
	foreign                  bool // An id of B is in it.
}

// The kinds of ids in paths, by the name before them, and in bodies and queries.
var (
	pathKinds = map[string]string{
		"devices": "device", "allocations": "allocation", "organisations": "organisation",
		"users": "user", "members": "user", "invitations": "invitation", "keys": "key", "webhooks": "webhook", "deliveries": "delivery", "sessions": "session", "providers": "provider",
		"connections": "connection",
	}
	fieldKinds = map[string]string{
		"deviceId": "device", "serverId": "server", "organisationId": "organisation", "ownerId": "user", "userId": "user",
		"userCode": "userCode", "allocationId": "allocation",
	}
)

// noCode is the user code of nobody.
const noCode = "CDFG-2345"

// request fills an operation's path, its query and one of its bodies with ids of both tenants.
func (w *tenants) request(t *testing.T, o tenantOperation, own ids) tenantRequest {
	t.Helper()
	r := tenantRequest{method: o.method}
	pick := func(kind string) (id, absent string) {
		if of := w.ofB[kind]; w.random.IntN(3) > 0 {
			r.foreign = true
			switch kind {
			case "device", "server", "session":
				return of[w.random.IntN(len(of))], uuid.NewString()
			case "connection":
				return of[w.random.IntN(len(of))], strings.ReplaceAll(uuid.NewString(), "-", "") + "-0000000000000001"
			case "userCode":
				return of[w.random.IntN(len(of))], noCode
			}
			return of[w.random.IntN(len(of))], "999999999"
		}
		of := own[kind]
		id = of[w.random.IntN(len(of))]
		return id, id
	}
	before := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(o.path, "/"), "/") {
		id, absent := part, part
		if strings.HasPrefix(part, "{") {
			kind, ok := pathKinds[before]
			if !ok {
				t.Fatalf("%s: give tenant B something of the kind that %s identifies, and pathKinds its kind", o.path, part)
			}
			id, absent = pick(kind)
		}
		r.path, r.absentPath, before = r.path+"/"+id, r.absentPath+"/"+absent, part
	}
	query, absentQuery := url.Values{}, url.Values{}
	for _, name := range o.query {
		if name == "userCode" || w.random.IntN(2) > 0 {
			id, absent := pick(fieldKinds[name])
			query.Set(name, id)
			absentQuery.Set(name, absent)
		}
	}
	if len(query) > 0 {
		r.path, r.absentPath = r.path+"?"+query.Encode(), r.absentPath+"?"+absentQuery.Encode()
	}
	if len(o.bodies) == 0 {
		return r
	}
	body, absent := map[string]any{}, map[string]any{}
	example, _ := o.bodies[w.random.IntN(len(o.bodies))].(map[string]any)
	for name, value := range example {
		body[name], absent[name] = value, value
	}
	for _, name := range o.fields {
		kind, ok := fieldKinds[name]
		if _, has := example[name]; !ok || !has && w.random.IntN(2) > 0 {
			continue
		}
		id, none := pick(kind)
		body[name], absent[name] = jsonID(id), jsonID(none)
	}
	if _, has := body["email"]; has && w.random.IntN(2) > 0 {
		// In capitals it names the same account, and in an answer it is not from B's row.
		email := strings.ToUpper(mark) + "-1@EXAMPLE.COM"
		body["email"], absent["email"] = email, email
		if _, has := body["password"]; has {
			body["password"], absent["password"] = "a guessed password", "a guessed password"
		}
	}
	r.body, r.absentBody = body, absent
	return r
}

// jsonID returns a number for the id of a row, and the text of a UUID.
func jsonID(id string) any {
	if number, err := strconv.ParseInt(id, 10, 64); err == nil {
		return number
	}
	return id
}
