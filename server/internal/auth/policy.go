package auth

import (
	"net/http"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Answer is what a caller gets for who it is: the status of a refusal, or one of the
// constants.
type Answer int

// The answers that are no refusal. In the table, every answer has three characters.
const (
	Allowed Answer = http.StatusOK
	// Unlisted is a list without what the caller may not see.
	Unlisted Answer = http.StatusPartialContent

	yes = Allowed
	out = Unlisted
)

// Caller is what a caller is to the device, allocation or organisation that a request is
// about: a column of the table.
type Caller int

// The columns of the table. To a request that is about none of these, every user who is no
// admin is all of Stranger to Owner.
const (
	NoCredential Caller = iota
	EndedSession        // An expired or revoked session, or a revoked device token.
	Stranger            // A user who is none of the following.
	Member              // A member of the organisation that it is or that owns it.
	OrgAdmin            // An admin of that organisation.
	Owner               // The user who owns it, or an owner of that organisation.
	SiteAdmin           // An admin of the panel.
	OwnClient           // The tunnel client that it is, or of the allocation.
	OwnServer           // The tunnel server that it is, or of the allocation.
	OtherDevice         // A device of either kind that is none of these.
	Callers             // The number of columns.
)

// The cases of operations: what a request can ask for that not everybody gets who may
// use the operation.
const (
	PortBelow1024  = "port below 1024"
	CordonedServer = "cordoned server"
	ServerSettings = "server settings"
	TunnelServer   = "tunnel server"
	Organisation   = "organisation"
	ByAdmins       = "by admins" // The setting says that only admins create organisations.
	AnotherOwner   = "another owner"
	Oneself        = "oneself"
	AdminsApprove  = "admins approve"
	Unowned        = "no owner"
	AnotherUser    = "another user"
)

// policy is the table of who may do what: a row for every operation of the contract, and
// for its cases. An operation without a row cannot be served. A test sends every row to a
// panel as every caller, and holds the contract to the table.
//
// Answers that are the same whatever the request is about are given before its body is
// read; handlers ask [Principal.May] about cases. What is somebody's own is decided by a
// [db.Scope] within the handler's query, for which anything else does not exist.
var policy = map[string][Callers]Answer{
	//                                   no    ended  other  mem-  org.   owner  site   own     own     other
	//                                   cred. sess.  user   ber   admin         admin  client  server  device
	"listAllocations":                   {401, 401, out, yes, yes, yes, yes, yes, out, out},
	"createAllocation":                  {401, 401, 404, 403, yes, yes, yes, yes, 404, 404},
	"createAllocation, port below 1024": {401, 401, 404, 403, 403, 403, yes, 403, 404, 404},
	"createAllocation, cordoned server": {401, 401, 404, 403, 409, 409, yes, 409, 404, 404},
	"getAllocation":                     {401, 401, 404, yes, yes, yes, yes, yes, 404, 404},
	"updateAllocation":                  {401, 401, 404, 403, yes, yes, yes, yes, 404, 404},
	"updateAllocation, port below 1024": {401, 401, 404, 403, 403, 403, yes, 403, 404, 404},
	"updateAllocation, cordoned server": {401, 401, 404, 403, 409, 409, yes, 409, 404, 404},
	"deleteAllocation":                  {401, 401, 404, 403, yes, yes, yes, yes, 404, 404},
	"listDevices":                       {401, 401, out, yes, yes, yes, yes, 403, 403, 403},
	"getDevice":                         {401, 401, 404, yes, yes, yes, yes, yes, yes, 404},
	"updateDevice":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"updateDevice, server settings":     {401, 401, 404, 403, 403, 403, yes, 403, 403, 403},
	"updateDevice, oneself":             {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"updateDevice, another owner":       {401, 401, 404, 403, 403, 403, yes, 403, 403, 403},
	"updateDevice, organisation":        {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"updateDevice, tunnel server":       {401, 401, 404, 403, 403, 403, yes, 403, 403, 403},
	"drainDevice":                       {401, 401, 404, 403, 403, 403, yes, 403, 403, 403},
	"createDevice":                      {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"createDevice, admins approve":      {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"createDevice, tunnel server":       {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"createDevice, organisation":        {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"createDevice, another user":        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"deleteDevice":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"regenerateDeviceToken":             {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"startEnrollment":                   {yes, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"startEnrollment, tunnel server":    {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"startEnrollment, organisation":     {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"pollEnrollment":                    {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"getPendingDevice":                  {401, 401, 404, 404, yes, yes, yes, 403, 403, 403},
	"getPendingDevice, admins approve":  {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"getPendingDevice, tunnel server":   {401, 401, 404, 404, 404, 404, yes, 403, 403, 403},
	"getPendingDevice, no owner":        {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"approveDevice":                     {401, 401, 404, 404, yes, yes, yes, 403, 403, 403},
	"approveDevice, admins approve":     {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"approveDevice, tunnel server":      {401, 401, 404, 404, 403, 403, yes, 403, 403, 403},
	"approveDevice, no owner":           {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"approveDevice, organisation":       {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"approveDevice, another user":       {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"denyDevice":                        {401, 401, 404, 404, yes, yes, yes, 403, 403, 403},
	"denyDevice, admins approve":        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"denyDevice, tunnel server":         {401, 401, 404, 404, 403, 403, yes, 403, 403, 403},
	"denyDevice, no owner":              {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"connectControlChannel":             {401, 401, 403, 403, 403, 403, 403, yes, yes, yes},
	"login":                             {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"logout":                            {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"getSession":                        {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"setPassword":                       {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"listUsers":                         {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"createUser":                        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"getUser":                           {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"updateUser":                        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"deleteUser":                        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"createPasswordLink":                {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"getSettings":                       {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"updateSettings":                    {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"getOrganisationRules":              {401, 401, 404, yes, yes, yes, yes, 403, 403, 403},
	"updateOrganisationRules":           {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"listOrganisations":                 {401, 401, out, yes, yes, yes, yes, 403, 403, 403},
	"createOrganisation":                {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"createOrganisation, by admins":     {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"createOrganisation, another owner": {401, 401, 403, 403, 403, 403, yes, 403, 403, 403},
	"getOrganisation":                   {401, 401, 404, yes, yes, yes, yes, 403, 403, 403},
	"updateOrganisation":                {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"deleteOrganisation":                {401, 401, 404, 403, 403, yes, yes, 403, 403, 403},
	"listMembers":                       {401, 401, 404, yes, yes, yes, yes, 403, 403, 403},
	"updateMember":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"updateMember, another owner":       {401, 401, 404, 403, 403, yes, yes, 403, 403, 403},
	"removeMember":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"removeMember, another owner":       {401, 401, 404, 403, 403, yes, yes, 403, 403, 403},
	"removeMember, oneself":             {401, 401, 404, yes, yes, yes, yes, 403, 403, 403},
	"listInvitations":                   {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"createInvitation":                  {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"createInvitation, another owner":   {401, 401, 404, 403, 403, yes, yes, 403, 403, 403},
	"revokeInvitation":                  {401, 401, 404, 403, yes, yes, yes, 403, 403, 403},
	"revokeInvitation, another owner":   {401, 401, 404, 403, 403, yes, yes, 403, 403, 403},
	"lookUpInvitation":                  {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"acceptInvitation":                  {401, 401, yes, yes, yes, yes, yes, 403, 403, 403},
	"getOpenAPI":                        {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"getJWKS":                           {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"getHealth":                         {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"getReadiness":                      {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
	"getVersion":                        {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes},
}

// Rule is the row of an operation, or of a case of it.
type Rule [Callers]Answer

// RuleOf returns the row of an operation, by its id in the contract, and of one of its
// cases, which is "" for the operation itself. It reports whether there is one.
func RuleOf(operation, what string) (Rule, bool) {
	if what != "" {
		operation += ", " + what
	}
	row, ok := policy[operation]
	return row, ok
}

// Public reports whether the operation ignores credentials: a stale cookie must not keep
// anybody from logging in.
func (r Rule) Public() bool { return r[EndedSession] == Allowed }

// Refuse returns the refusal of a caller that does not depend on what the request is
// about, or nil. The caller's credential is valid, or there is none.
func (r Rule) Refuse(p Principal) error {
	columns := p.columns()
	answer := r[columns[0]]
	for _, c := range columns {
		if r[c] != answer {
			return nil
		}
	}
	switch {
	case answer == http.StatusUnauthorized:
		return problem.Unauthorized("Log in first, or send a token.")
	case answer != http.StatusForbidden:
		return nil
	case p.Kind() == KindDevice:
		return problem.Forbidden("This operation does not accept a device token.")
	case r[SiteAdmin] == Allowed:
		return problem.Forbidden("Only an admin can do this.")
	default:
		return problem.Forbidden("This operation needs a device token.")
	}
}

// May reports whether the caller may use an operation, or a case of it, for what is its
// own.
func (p Principal) May(operation, what string) bool {
	rule, _ := RuleOf(operation, what)
	return rule[p.columns()[0]] == Allowed
}

// columns returns the columns that the caller can be, that of its own first.
func (p Principal) columns() []Caller {
	switch {
	case p.Device != nil && p.Device.Kind == db.KindServer:
		return []Caller{OwnServer, OtherDevice}
	case p.Device != nil:
		return []Caller{OwnClient, OtherDevice}
	case p.IsAdmin():
		return []Caller{SiteAdmin}
	case p.User != nil:
		return []Caller{Owner, OrgAdmin, Member, Stranger}
	default:
		return []Caller{NoCredential}
	}
}

// MemberAs returns the column of a user with a role in an organisation, "" for none.
func MemberAs(role string) Caller {
	switch role {
	case "owner":
		return Owner
	case "admin":
		return OrgAdmin
	case "member":
		return Member
	default:
		return Stranger
	}
}
