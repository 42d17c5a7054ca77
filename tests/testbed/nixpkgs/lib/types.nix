# SPDX-License-Identifier: GPL-3.0-or-later
# Option types: name, check of one definition, merge of all.
{ lib, modules }:
let
  inherit (builtins)
    all
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    map
    mapAttrs
    zipAttrsWith
    ;
  inherit (modules) showLoc;
  values = map (d: d.value);
  unique =
    loc: defs:
    let
      first = head defs;
    in
    if length defs == 1 || all (d: d.value == first.value) defs then
      first.value
    else
      throw "The option `${showLoc loc}' has conflicting definition values in: ${
        concatStringsSep ", " (map (d: d.file) defs)
      }";
  simple = name: check: {
    inherit name check;
    merge = unique;
  };
  joined = name: sep: {
    inherit name;
    check = isString;
    merge = _: defs: concatStringsSep sep (values defs);
  };
  mergeAny =
    loc: defs:
    let
      found = values defs;
    in
    if all isAttrs found && !(all (v: v ? type && v.type == "derivation") found) then
      zipAttrsWith (
        name: vs:
        mergeAny (loc ++ [ name ]) (
          map (value: {
            file = (head defs).file;
            inherit value;
          }) vs
        )
      ) found
    else if all isList found then
      concatMap (v: v) found
    else
      unique loc defs;
  types = {
    anything = {
      name = "anything";
      check = _: true;
      merge = mergeAny;
    };
    attrs = {
      name = "attribute set";
      check = isAttrs;
      merge = _: foldl' (acc: d: acc // d.value) { };
    };
    bool = simple "boolean" isBool;
    commas = joined "strings concatenated with \",\"" ",";
    int = simple "signed integer" isInt;
    ints.positive = simple "positive integer" (v: isInt v && v > 0);
    ints.unsigned = simple "unsigned integer" (v: isInt v && v >= 0);
    lines = joined "strings concatenated with \"\\n\"" "\n";
    package = simple "package" (v: isAttrs v && v ? outPath || isString v);
    path = simple "path" (v: isPath v || isAttrs v && v ? outPath || isString v && lib.hasPrefix "/" v);
    port = simple "16 bit unsigned integer" (v: isInt v && v >= 0 && v < 65536);
    raw = {
      name = "raw value";
      check = _: true;
      merge = loc: defs: if length defs == 1 then (head defs).value else unique loc defs;
    };
    str = simple "string" isString;
    nonEmptyStr = simple "non-empty string" (v: isString v && v != "");
    unspecified = types.anything;

    enum = allowed: simple "one of ${builtins.toJSON allowed}" (v: elem v allowed);
    strMatching = pattern: simple "string matching the pattern ${pattern}" (v: isString v && builtins.match pattern v != null);
    nullOr = type: {
      name = "null or ${type.name}";
      check = v: v == null || type.check v;
      merge =
        loc: defs:
        let
          found = filter (d: d.value != null) defs;
        in
        if found == [ ] then null else type.merge loc found;
    };
    either = a: b: {
      name = "${a.name} or ${b.name}";
      check = v: a.check v || b.check v;
      merge = loc: defs: if all (d: a.check d.value) defs then a.merge loc defs else b.merge loc defs;
    };
    oneOf = list: foldl' types.either (head list) (builtins.tail list);
    coercedTo = from: coerce: to: {
      name = "${to.name} or ${from.name} convertible to it";
      check = v: from.check v || to.check v;
      merge =
        loc: defs:
        to.merge loc (map (d: if from.check d.value then d // { value = coerce d.value; } else d) defs);
    };
    listOf = type: {
      name = "list of ${type.name}";
      check = isList;
      merge =
        loc: defs:
        concatMap (
          d:
          concatMap (
            value:
            let
              found = modules.winners [ (d // { inherit value; }) ];
            in
            lib.optional (found != [ ]) (modules.mergeWinners (loc ++ [ "*" ]) type found)
          ) d.value
        ) (map (d: removeAttrs d [ "priority" "order" ]) defs);
    };
    attrsOf = type: {
      name = "attribute set of ${type.name}";
      check = isAttrs;
      merge =
        loc: defs:
        let
          plain = map (d: removeAttrs d [ "priority" "order" ]) defs;
          pushed = concatMap (d: map (value: d // { inherit value; }) (modules.pushDown d.value)) plain;
          byName = zipAttrsWith (_: ds: modules.winners ds) (
            map (d: mapAttrs (_: value: d // { inherit value; }) d.value) pushed
          );
        in
        mapAttrs (name: ds: modules.mergeWinners (loc ++ [ name ]) type ds) (
          lib.filterAttrs (_: ds: ds != [ ]) byName
        );
    };
    lazyAttrsOf = types.attrsOf;
    submoduleWith =
      {
        modules,
        specialArgs ? { },
      }:
      types.submodule {
        imports = modules;
        _module.args = specialArgs;
      };
    submodule = module: {
      name = "submodule";
      check = v: isAttrs v || isFunction v || isPath v;
      merge =
        loc: defs:
        (modules.evalModules {
          modules = [
            module
            { _module.args.name = lib.last loc; }
          ]
          ++ map (d: {
            _file = d.file;
            imports = [ d.value ];
          }) defs;
          prefix = loc;
        }).config;
    };
  };
in
types
