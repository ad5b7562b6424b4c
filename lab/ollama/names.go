package main

// Model names: [host[:port]/]namespace/model:tag, parsed as the real one does (types/model/name.go).

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	defaultHost      = "registry.ollama.ai"
	defaultNamespace = "library"
	defaultTag       = "latest"
)

// Name is a model's full name; a scheme written before the host is not kept.
type Name struct{ Host, Namespace, Model, Tag string }

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// parseName fills what is missing from the defaults.
func parseName(s string) Name {
	n := Name{Host: defaultHost, Namespace: defaultNamespace, Tag: defaultTag}
	s, _, _ = strings.Cut(s, "@")
	if strings.LastIndex(s, ":") > strings.LastIndex(s, "/") {
		var tag string
		if s, tag, _ = cutLast(s, ":"); tag != "" {
			n.Tag = tag
		}
	}
	rest, model, ok := cutLast(s, "/")
	if !ok {
		n.Model = s
		return n
	}
	n.Model = model
	host, namespace, ok := cutLast(rest, "/")
	if !ok {
		n.Namespace = rest
		return n
	}
	n.Namespace = namespace
	if _, after, ok := strings.Cut(host, "://"); ok {
		host = after
	}
	if host != "" {
		n.Host = host
	}
	return n
}

var (
	hostForm      = regexp.MustCompile(`^\w[-.:\w]{0,349}$`)
	namespaceForm = regexp.MustCompile(`^\w[-\w]{0,79}$`)
	modelForm     = regexp.MustCompile(`^\w[-.\w]{0,79}$`)
)

// Valid says whether the name may be stored: a namespace has no dot, only a host has a colon.
func (n Name) Valid() bool {
	return hostForm.MatchString(n.Host) && namespaceForm.MatchString(n.Namespace) &&
		modelForm.MatchString(n.Model) && modelForm.MatchString(n.Tag)
}

// newName is the name that a model is made or pulled under: one that is stored, where only the case differs.
func newName(asked string) (Name, error) {
	name := parseName(asked)
	if asked == "" || !name.Valid() {
		return name, refuse(http.StatusBadRequest, "invalid model name")
	}
	return existingName(name), nil
}

// Path is the manifest's place below manifests/.
func (n Name) Path() string { return filepath.Join(n.Host, n.Namespace, n.Model, n.Tag) }

// String is the name as /api/tags shows it: defaults left out, the tag always there.
func (n Name) String() string {
	s := n.Model + ":" + n.Tag
	host := !strings.EqualFold(n.Host, defaultHost)
	if host || !strings.EqualFold(n.Namespace, defaultNamespace) {
		s = n.Namespace + "/" + s
	}
	if host {
		s = n.Host + "/" + s
	}
	return s
}

// Is compares without regard to case.
func (n Name) Is(other Name) bool { return strings.EqualFold(n.Path(), other.Path()) }

// isCloud: such names would be forwarded to ollama.com.
func isCloud(s string) bool {
	_, tag, ok := cutLast(s, ":")
	return ok && (tag == "cloud" || strings.HasSuffix(tag, "-cloud")) && !strings.Contains(tag, "/")
}
