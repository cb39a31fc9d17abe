package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// maxComplexity is how many ways there may be through one function: more are
// decisions that have no name yet. A switch counts as one where its cases say
// one thing each, as the rows of a table do.
const maxComplexity = 15

func checkComplexity(files []string) error {
	var faults []error
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := complexity(fn.Body); n > maxComplexity {
				faults = append(faults, fmt.Errorf("%s: %s has %d ways through it, and %d are allowed", fset.Position(fn.Pos()), fn.Name.Name, n, maxComplexity))
			}
		}
	}
	return errors.Join(faults...)
}

// complexity is McCabe's, a table's rows aside.
func complexity(body *ast.BlockStmt) int {
	n := 1
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		case *ast.SwitchStmt:
			if isTable(node.Body) {
				n++
				return false
			}
		case *ast.CaseClause:
			if node.List != nil {
				n++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				n++
			}
		}
		return true
	})
	return n
}

// isTable reports whether every case of a switch is one statement that returns
// or assigns.
func isTable(body *ast.BlockStmt) bool {
	for _, c := range body.List {
		clause, ok := c.(*ast.CaseClause)
		if !ok || len(clause.Body) > 1 {
			return false
		}
		for _, s := range clause.Body {
			switch s.(type) {
			case *ast.ReturnStmt, *ast.AssignStmt:
			default:
				return false
			}
		}
	}
	return true
}
