package handler

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Entity tags (RFC 9110 section 8.8.3) are of what an editor can change of a resource, and not of what changes by
// itself, such as a status: otherwise every edit would conflict with life. They are compared with the row as it is
// when it is changed, by db.WithCondition.

// ifMatchHeader is the header of a change that requires a tag (RFC 9110 section 13.1.1).
const ifMatchHeader = "If-Match"

// conditional is what a request and its response have of entity tags.
type conditional struct {
	ifMatch []string    // The tags of If-Match; nil without one.
	header  http.Header // Of the response.
}

type conditionalKey struct{}

// withConditional returns a request for an operation whose resource has a tag.
func withConditional(w http.ResponseWriter, r *http.Request) *http.Request {
	c := conditional{header: w.Header()}
	for _, tag := range strings.Split(strings.Join(r.Header.Values(ifMatchHeader), ","), ",") {
		// Of a weak tag a proxy has made that compresses the body, which the tag is not about.
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag != "" {
			c.ifMatch = append(c.ifMatch, tag)
		}
	}
	return r.WithContext(context.WithValue(r.Context(), conditionalKey{}, c))
}

// setTag sets the tag of what a response has.
func setTag(ctx context.Context, tag string) {
	if c, ok := ctx.Value(conditionalKey{}).(conditional); ok {
		c.header.Set("ETag", tag)
	}
}

// ifMatch returns a context with which a row is changed only if it has a tag that the request requires.
func ifMatch[T any](ctx context.Context, tagOf func(T) string) context.Context {
	c, _ := ctx.Value(conditionalKey{}).(conditional)
	if c.ifMatch == nil {
		return ctx
	}
	return db.WithCondition(ctx, func(row T) bool {
		return slices.Contains(c.ifMatch, "*") || slices.Contains(c.ifMatch, tagOf(row))
	})
}

// tag returns the tag of values.
func tag(values ...any) string {
	// What it is called with can be encoded.
	text, _ := json.Marshal(values)
	sum := sha256.Sum256(text)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`
}

var allocationFields = fieldsOf(reflect.TypeFor[types.AllocationPatch]())

// allocationTag is of the fields that a change of the allocation can have.
func allocationTag(row db.Allocation) string {
	text, _ := json.Marshal(toAllocation(row))
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(text, &fields)
	for name := range fields {
		if !slices.Contains(allocationFields, name) {
			delete(fields, name)
		}
	}
	return tag(fields)
}

// fieldsOf returns the names of the JSON fields of a struct.
func fieldsOf(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

func deviceTag(row db.Device) string {
	host := row.PublicHost
	if row.HostGuessed {
		host = "" // It follows the machine.
	}
	// Cordoned and draining are set by people, and a drain ends by itself.
	open := row.ServerState == db.ServerActive
	return tag(row.Name, row.OwnerID, row.OrganisationID, host, row.PortFirst, row.PortLast, row.Region, open, row.DrainUntil)
}

func userTag(row db.User) string { return tag(row.Email, row.Role, row.Suspended) }

func accountTag(row db.User) string { return tag(row.Email) }

func organisationTag(row db.Organisation) string { return tag(row.Name) }

func rulesTag(row db.Rules) string { return tag(row) }

func quotaTag(row db.OwnerQuota) string { return tag(row.Own) }

func apiKeyTag(row db.APIKey) string { return tag(row.Name) }

func memberTag(row db.Member) string { return tag(row.Role) }

func webhookTag(row db.Webhook) string {
	return tag(row.Name, row.URL, row.Format, row.Events, row.OfflineDelay, row.Enabled)
}

func settingsTag(row db.Settings) string { return tag(row) }
